//! The shaders as text: templates that are WGSL but for lines that begin with `//%` and places marked `${ }`, expanded once
//! per metric and variant. Loops over registers are unrolled here, since drivers unroll loops with checks badly.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value};

use crate::error::EngineError;

/// Every file of `shaders/`.
pub(super) const FILES: [(&str, &str); 11] = [
    ("numbers.wgsl", include_str!("../../../shaders/numbers.wgsl")),
    ("exact.wgsl", include_str!("../../../shaders/exact.wgsl")),
    ("pack.wgsl", include_str!("../../../shaders/pack.wgsl")),
    ("tile.wgsl", include_str!("../../../shaders/tile.wgsl")),
    ("merge.wgsl", include_str!("../../../shaders/merge.wgsl")),
    ("gather.wgsl", include_str!("../../../shaders/gather.wgsl")),
    ("pack_half.wgsl", include_str!("../../../shaders/pack_half.wgsl")),
    ("columns.wgsl", include_str!("../../../shaders/columns.wgsl")),
    ("horizon.wgsl", include_str!("../../../shaders/horizon.wgsl")),
    ("decode.wgsl", include_str!("../../../shaders/decode.wgsl")),
    ("tile_half.wgsl", include_str!("../../../shaders/tile_half.wgsl")),
];

/// Of all shaders: what was found out about others says nothing of these.
#[must_use]
pub fn shaders_checksum() -> u32 {
    FILES.iter().fold(0, |sum, (_, text)| crc32c::crc32c_append(sum, text.as_bytes()))
}

/// Expands a template with these words.
pub(super) fn expand(file: &str, words: &[(&'static str, Value)]) -> Result<String, EngineError> {
    let failed = |why: minijinja::Error| EngineError::Gpu {
        adapter: "any adapter".to_owned(),
        what: "expanding a shader",
        why: format!("{file}: {why:#}"),
    };
    let syntax = SyntaxConfig::builder()
        .line_statement_prefix("//%")
        .variable_delimiters("${", "}")
        .block_delimiters("/*%", "%*/")
        .comment_delimiters("/*#", "#*/")
        .build()
        .map_err(failed)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_trim_blocks(true);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    for (name, text) in FILES {
        environment.add_template(name, text).map_err(failed)?;
    }
    let words: Value = words.iter().map(|(name, value)| (*name, value.clone())).collect();
    environment.get_template(file).and_then(|template| template.render(words)).map_err(failed)
}
