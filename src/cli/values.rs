//! How single values are read from the command line. Each parser says what it wanted instead.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::job::request::DeviceChoice;
use crate::metric::Metric;
use crate::units::K;

/// `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Exact while that is quick, else ivf
    Auto,
    /// The true neighbours, every pair compared
    Exact,
    /// The lists nearest the query only
    Ivf,
    /// What a graph of the reference leads to only
    Hnsw,
}

/// `--kernel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Kernel {
    /// exp(−d²/2s²), s the mean distance
    Gauss,
    /// exp(−d·v/4), v the variance of the distances
    Scarches,
    /// 1/d
    InverseDistance,
    /// Every neighbour counts the same
    Equal,
    /// Not built yet
    Random,
    /// Not built yet
    Jaccard,
    /// Not built yet
    Hnoca,
    /// Not built yet
    Umap,
}

/// `--compat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compat {
    /// Self-mapping as CellMapper 0.2.5 does it
    #[value(name = "cellmapper-0.2.5")]
    CellMapper025,
}

/// `--names`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NamesChoice {
    /// Copy every cell's name
    All,
    /// Number the cells instead
    None,
}

/// `--encoding` of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// As they are
    F32,
    /// Half the size
    F16,
    /// A quarter of the size
    Sq8,
    /// Far smaller
    Pq,
}

/// `--lists` of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// As many as suit the number of cells.
    Auto,
    /// So many.
    Number(u64),
}

/// Where known values stand: `--truth QUERY:obs/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// The store.
    pub store: PathBuf,
    /// The key in its `obs`.
    pub key: String,
}

/// k, in range.
pub fn k(text: &str) -> Result<K, String> {
    let number: u32 = text.parse().map_err(|_| format!("write a whole number from 1 to {}", K::MAX))?;
    K::new(number).map_err(|e| e.to_string())
}

/// `--device`. Whether there is such an adapter shows later.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    match (text, text.strip_prefix("gpu:")) {
        ("", _) => Err("write auto, cpu, gpu, gpu:0, or a part of an adapter's name".to_owned()),
        ("auto", _) => Ok(DeviceChoice::Auto),
        ("cpu", _) => Ok(DeviceChoice::Cpu),
        ("gpu", _) => Ok(DeviceChoice::Gpu),
        (_, Some("all")) => Ok(DeviceChoice::AllGpus),
        (_, Some(number)) => number
            .parse()
            .map(DeviceChoice::Number)
            .map_err(|_| "write gpu:0, gpu:1, ...: `atlasknn devices` lists the numbers there are".to_owned()),
        _ => Ok(DeviceChoice::Named(text.to_owned())),
    }
}

/// A number of threads. The limit is there for typing errors: far more threads than cores take minutes to do nothing.
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(n) if n.get() <= THREADS_MAX => Ok(n),
        _ => Err(format!("write a whole number from 1 to {THREADS_MAX}; more than there are cores is of no use")),
    }
}

const THREADS_MAX: usize = 1024;

/// Where coordinates are; what there is only shows in the store.
pub fn rep(text: &str) -> Result<String, String> {
    if text.trim_matches('/').is_empty() {
        return Err("write the name of an array, for example X_pca or layers/scaled".to_owned());
    }
    Ok(text.to_owned())
}

/// `auto`, or how many lists.
pub fn lists(text: &str) -> Result<Lists, String> {
    match text.parse::<u64>() {
        _ if text == "auto" => Ok(Lists::Auto),
        Ok(n) if n > 0 => Ok(Lists::Number(n)),
        _ => Err("write auto, or a whole number from 1 on".to_owned()),
    }
}

/// A metric by its name; used behind a list of the names, so that a typing error gets a suggestion.
pub fn metric(text: &str) -> Result<Metric, String> {
    text.parse().map_err(|e: crate::error::UnitError| e.to_string())
}

/// A share of the neighbours.
pub fn recall(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("write a number above 0 and up to 1, for example 0.99".to_owned()),
    }
}

/// A number above 0.
pub fn times(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("write a number above 0, for example 1.4".to_owned()),
    }
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("write a number from 0 to 1, for example 0.5".to_owned()),
    }
}

/// Two percentiles, `LOW,HIGH`.
pub fn percentiles(text: &str) -> Result<(f64, f64), String> {
    let wanted = || "write two percentiles from 0 to 100, the lower first, for example 1,99".to_owned();
    let (low, high) = text.split_once(',').ok_or_else(wanted)?;
    let number = |part: &str| part.trim().parse::<f64>().map_err(|_| wanted());
    let (low, high) = (number(low)?, number(high)?);
    if 0.0 <= low && low < high && high <= 100.0 { Ok((low, high)) } else { Err(wanted()) }
}

/// `KEY=CATEGORY`, cut at the first `=`.
pub fn key_and_category(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, category)) if !key.is_empty() && !category.is_empty() => Ok((obs_key(key)?, category.to_owned())),
        _ => Err("write KEY=CATEGORY, for example cell_type=\"CD4 T\"".to_owned()),
    }
}

/// A column of `obs`; a leading `obs/` is understood.
pub fn obs_key(text: &str) -> Result<String, String> {
    bare_key(text, "obs/", "a column of obs, for example cell_type")
}

/// An array of `obsm`; a leading `obsm/` is understood.
pub fn obsm_key(text: &str) -> Result<String, String> {
    bare_key(text, "obsm/", "an array of obsm, for example X_umap")
}

fn bare_key(text: &str, group: &str, wanted: &str) -> Result<String, String> {
    let key = text.strip_prefix(group).unwrap_or(text);
    if std::path::Path::new(text).exists() && text.contains(['/', '.']) {
        return Err(format!("this is a path; write QUERY and REFERENCE first, then the name of {wanted}"));
    }
    if key.is_empty() || key.contains('/') { Err(format!("write the name of {wanted}")) } else { Ok(key.to_owned()) }
}

/// `QUERY:obs/KEY`; the store's path may hold colons of its own.
pub fn truth(text: &str) -> Result<Truth, String> {
    let wanted = || "write a store and a column of its obs, for example query.zarr:obs/cell_type".to_owned();
    let (store, key) = text.rsplit_once(':').ok_or_else(wanted)?;
    if store.is_empty() {
        return Err(wanted());
    }
    Ok(Truth { store: PathBuf::from(store), key: obs_key(key).map_err(|_| wanted())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_say_what_is_wanted() {
        let cases: [(&str, Result<(), String>); 16] = [
            ("gpu:0", device("").map(drop)),
            ("atlasknn devices", device("gpu:x").map(drop)),
            ("1 to 256", k("0").map(drop)),
            ("1 to 256", k("257").map(drop)),
            ("1 to 256", k("many").map(drop)),
            ("1 to 1024", threads("0").map(drop)),
            ("1 to 1024", threads("9999").map(drop)),
            ("auto", lists("0").map(drop)),
            ("auto", lists("many").map(drop)),
            ("X_pca", rep("/").map(drop)),
            ("0 to 1", share("1.5").map(drop)),
            ("0 to 1", share("NaN").map(drop)),
            ("1,99", percentiles("99,1").map(drop)),
            ("1,99", percentiles("NaN,99").map(drop)),
            ("KEY=CATEGORY", key_and_category("cell_type").map(drop)),
            ("query.zarr:obs/cell_type", truth("query.zarr").map(drop)),
        ];
        for (wanted, got) in cases {
            let message = got.expect_err(wanted);
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn a_device_is_a_kind_a_number_or_a_part_of_a_name() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("gpu", DeviceChoice::Gpu),
            ("gpu:12", DeviceChoice::Number(12)),
            ("gpu:all", DeviceChoice::AllGpus),
            ("Radeon RX", DeviceChoice::Named("Radeon RX".to_owned())),
            ("gpu2000", DeviceChoice::Named("gpu2000".to_owned())),
        ] {
            assert_eq!(device(text), Ok(choice), "{text}");
        }
    }

    #[test]
    fn truth_is_a_store_and_a_column() {
        for (text, store, key) in [
            ("query.zarr:obs/cell_type", "query.zarr", "cell_type"),
            ("query.zarr:cell_type", "query.zarr", "cell_type"),
            ("s3://bucket/query.zarr:obs/a b", "s3://bucket/query.zarr", "a b"),
            (r"C:\data\query.zarr:obs/donor", r"C:\data\query.zarr", "donor"),
        ] {
            assert_eq!(truth(text), Ok(Truth { store: PathBuf::from(store), key: key.to_owned() }), "{text}");
        }
        for text in ["s3://bucket/query.zarr", ":obs/x", "query.zarr:obs/", "query.zarr:obsm/X_pca"] {
            assert!(truth(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_may_carry_their_group_and_categories_any_sign() {
        assert_eq!(obs_key("obs/donor"), Ok("donor".to_owned()));
        assert_eq!(obsm_key("obsm/X_umap"), Ok("X_umap".to_owned()));
        assert!(obs_key("obsm/X_umap").is_err() && obsm_key("").is_err());
        assert_eq!(key_and_category("ct=CD4+ = naive"), Ok(("ct".to_owned(), "CD4+ = naive".to_owned())));
    }
}
