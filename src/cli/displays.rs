//! Mesa's layer that sorts Vulkan devices asks the display which one it uses, and where there is no display, as on servers,
//! `XDG_RUNTIME_DIR is invalid` appears among what a command prints. Adapters have numbers here, and need no sorting.

/// Keeps that layer away where there is no session with a display and nobody has decided about it.
#[allow(unsafe_code)]
pub fn ask_no_display() {
    const AWAY: &str = "NODEVICE_SELECT";
    let decided = [AWAY, "XDG_RUNTIME_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    if cfg!(target_os = "linux") && !decided {
        // SAFETY: called before any other thread starts, so none reads the environment meanwhile.
        unsafe { std::env::set_var(AWAY, "1") };
    }
}
