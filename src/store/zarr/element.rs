//! What one element of a zarr array is, read from the metadata of either format.

use serde_json::Value;

use crate::store::FloatType;
use crate::store::node::Node;

/// The type of an array's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// True or false, a byte each.
    Bool,
    /// Signed, this many bytes.
    Int(u8),
    /// Unsigned, this many bytes.
    UInt(u8),
    /// Floating point.
    Float(FloatType),
    /// Text of any length.
    Text,
    /// Text of at most this many code points, four bytes each, padded with zeros.
    FixedText(usize),
    /// Something else, by the name it has in the metadata.
    Other(String),
}

impl Element {
    /// The element type of an array.
    #[must_use]
    pub fn of(array: &Node) -> Self {
        let value = array.metadata.get(if array.zarr_format == 3 { "data_type" } else { "dtype" });
        let unknown = || Self::Other(value.map_or_else(|| "nothing".to_owned(), ToString::to_string));
        match value {
            Some(Value::String(name)) if array.zarr_format == 3 => Self::of_v3(name),
            Some(Value::String(dtype)) => Self::of_v2(dtype, array),
            Some(Value::Object(object)) => match object.get("name").and_then(Value::as_str) {
                Some("fixed_length_utf32") => object
                    .get("configuration")
                    .and_then(|c| c.get("length_bytes"))
                    .and_then(Value::as_u64)
                    .and_then(|bytes| usize::try_from(bytes / 4).ok())
                    .map_or_else(unknown, Self::FixedText),
                Some(name) => Self::of_v3(name),
                None => unknown(),
            },
            _ => unknown(),
        }
    }

    fn of_v3(name: &str) -> Self {
        match name {
            "bool" => Self::Bool,
            "int8" => Self::Int(1),
            "int16" => Self::Int(2),
            "int32" => Self::Int(4),
            "int64" => Self::Int(8),
            "uint8" => Self::UInt(1),
            "uint16" => Self::UInt(2),
            "uint32" => Self::UInt(4),
            "uint64" => Self::UInt(8),
            "float16" => Self::Float(FloatType::F16),
            "float32" => Self::Float(FloatType::F32),
            "float64" => Self::Float(FloatType::F64),
            "string" => Self::Text,
            other => Self::Other(other.to_owned()),
        }
    }

    fn of_v2(dtype: &str, array: &Node) -> Self {
        // The first character is the byte order, which the codecs take care of.
        match dtype.get(1..).unwrap_or("") {
            "b1" => Self::Bool,
            "i1" => Self::Int(1),
            "i2" => Self::Int(2),
            "i4" => Self::Int(4),
            "i8" => Self::Int(8),
            "u1" => Self::UInt(1),
            "u2" => Self::UInt(2),
            "u4" => Self::UInt(4),
            "u8" => Self::UInt(8),
            "f2" => Self::Float(FloatType::F16),
            "f4" => Self::Float(FloatType::F32),
            "f8" => Self::Float(FloatType::F64),
            "O" if object_codec(array) == Some("vlen-utf8") => Self::Text,
            other => match other.strip_prefix('U').map(str::parse) {
                Some(Ok(code_points)) => Self::FixedText(code_points),
                _ => Self::Other(dtype.to_owned()),
            },
        }
    }

    /// Bytes per element, or `None` for text of any length and unknown types.
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        match self {
            Self::Bool => Some(1),
            Self::Int(bytes) | Self::UInt(bytes) => Some(usize::from(*bytes)),
            Self::Float(float) => usize::try_from(float.bytes()).ok(),
            Self::FixedText(code_points) => code_points.checked_mul(4),
            Self::Text | Self::Other(_) => None,
        }
    }

    /// The zarr v3 name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Bool => "bool".to_owned(),
            Self::Int(bytes) => format!("int{}", u32::from(*bytes) * 8),
            Self::UInt(bytes) => format!("uint{}", u32::from(*bytes) * 8),
            Self::Float(float) => float.name().to_owned(),
            Self::Text => "string".to_owned(),
            Self::FixedText(code_points) => format!("string of at most {code_points}"),
            Self::Other(name) => name.clone(),
        }
    }
}

fn object_codec(array: &Node) -> Option<&str> {
    array.metadata.get("filters")?.as_array()?.first()?.get("id")?.as_str()
}
