//! Shaders against the host, read by naga: params field by field, workgroup memory, numbers of bindings, and whether each
//! can be written for Metal and DX12.

use std::collections::{BTreeMap, HashSet};
use std::mem::offset_of;

use naga::back::{hlsl, msl};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Scalar, TypeInner};

use super::params::{
    ColumnsParams, DecodeParams, GatherParams, HalfParams, HalfTileParams, HorizonParams, Job, Mark, MergeParams,
    PackParams, TileParams,
};
use super::tests::every_shader;
use super::variant::Variant;

/// Every different shader, parsed and checked.
fn every_module() -> Vec<(String, Variant, Module, ModuleInfo)> {
    let mut seen = HashSet::new();
    let different = every_shader().filter(|(_, variant, source)| seen.insert((variant.name, source.clone())));
    let parsed = different.map(|(what, variant, source)| {
        let module = naga::front::wgsl::parse_str(&source).expect(&what);
        let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).expect(&what);
        (what, variant, module, info)
    });
    parsed.collect()
}

/// Name, offset and type of every field; the struct is taken apart, so that none can be left out.
macro_rules! fields {
    ($params:ident: $($field:ident)*) => {{
        let $params { $($field),* } = $params::default();
        let fields = vec![$((stringify!($field), offset_of!($params, $field), scalar_of($field))),*];
        (stringify!($params), fields, size_of::<$params>())
    }};
}

trait Word {
    const SCALAR: Scalar;
}

impl Word for u32 {
    const SCALAR: Scalar = Scalar::U32;
}

impl Word for i32 {
    const SCALAR: Scalar = Scalar::I32;
}

impl Word for f32 {
    const SCALAR: Scalar = Scalar::F32;
}

fn scalar_of<T: Word>(_: T) -> Scalar {
    T::SCALAR
}

type Fields = (&'static str, Vec<(&'static str, usize, Scalar)>, usize);

fn twins() -> Vec<Fields> {
    vec![
        fields!(PackParams: rows slots dim width channels exponent gamma shift zero_share pad0 pad1 pad2),
        fields!(TileParams: jobs slabs room first_row),
        fields!(MergeParams: width k room first_row queries listed ranged overflow_at first_position last_position
            first_tile tiles stride first_reference last_reference tile own_row share again tops_from
            plane pad0 pad1 pad2),
        fields!(GatherParams: slots channels pad0 pad1),
        fields!(HorizonParams: queries k plane nearest times squares pad0 pad1),
        fields!(DecodeParams: kind rows first dim width codes pad0 pad1),
        fields!(HalfParams: slots dim channels blocks gamma rows pad0 pad1),
        fields!(ColumnsParams: slots first blocks pad0),
        fields!(HalfTileParams: jobs room first_row channels rows listed grouped pad0),
    ]
}

#[test]
fn params_have_the_fields_of_their_shaders_where_those_look_for_them() {
    let twins: BTreeMap<_, _> = twins().into_iter().map(|(name, fields, size)| (name, (fields, size))).collect();
    let mut compared = HashSet::new();
    for (what, _, module, _) in every_module() {
        let uniform = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform).expect(&what).1;
        let ty = &module.types[uniform.ty];
        let name = ty.name.clone().expect("a name");
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{what}: params are no struct") };
        let scalar = |ty: naga::Handle<naga::Type>| match module.types[ty].inner {
            TypeInner::Scalar(scalar) => scalar,
            ref other => panic!("{what}: {name} has a field that is {other:?}"),
        };
        let found: Vec<_> =
            members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), m.offset as usize, scalar(m.ty))).collect();
        let (fields, size) = twins.get(name.as_str()).unwrap_or_else(|| panic!("{what}: no twin of {name}"));
        assert_eq!((&found, *span as usize), (fields, *size), "{what}: {name}");
        compared.insert(name);
    }
    assert_eq!(compared.len(), twins.len(), "params that no shader has, beside {compared:?}");
}

#[test]
fn jobs_and_marks_are_whole_vectors_of_u32() {
    let (_, job, job_bytes) = fields!(Job: query_tile first_position last_position first_tile tiles stride
        first_reference last_reference);
    let (_, mark, mark_bytes) = fields!(Mark: id_low id_high group flags);
    for fields in [job, mark] {
        for (i, (name, offset, scalar)) in fields.into_iter().enumerate() {
            assert_eq!((offset, scalar), (4 * i, Scalar::U32), "{name}");
        }
    }
    // A job is two vectors, a mark one.
    let rows = [("jobs", job_bytes / 2), ("marks", mark_bytes), ("r_marks", mark_bytes), ("states", mark_bytes)];
    let mut compared = HashSet::new();
    for (what, _, module, _) in every_module() {
        for (_, variable) in module.global_variables.iter() {
            let Some((name, bytes)) = rows.iter().find(|(name, _)| variable.name.as_deref() == Some(*name)) else {
                continue;
            };
            let TypeInner::Array { base, stride, .. } = module.types[variable.ty].inner else {
                panic!("{what}: {name}")
            };
            assert!(
                matches!(module.types[base].inner, TypeInner::Vector { scalar: Scalar::U32, .. })
                    && stride as usize == *bytes,
                "{what}: {name}"
            );
            compared.insert(*name);
        }
    }
    assert_eq!(compared.len(), rows.len(), "{compared:?}");
}

#[test]
fn workgroup_memory_and_bindings_are_what_the_variant_declares() {
    for (what, variant, module, _) in every_module() {
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).expect(&what);
        let of = |space: fn(AddressSpace) -> bool| module.global_variables.iter().filter(move |(_, v)| space(v.space));
        let bytes: u64 = of(|space| space == AddressSpace::WorkGroup)
            .map(|(_, v)| u64::from(layouter[v.ty].size.next_multiple_of(16)))
            .sum();
        let storage = of(|space| matches!(space, AddressSpace::Storage { .. })).count();
        assert!(bytes <= variant.workgroup_bytes(), "{what}: {bytes} B shared, {} declared", variant.workgroup_bytes());
        if variant.name == "portable" {
            assert!(bytes <= 16 << 10 && storage <= 8, "{what}: {bytes} B shared, {storage} storage buffers");
        }
    }
}

/// What each shader must be written for. HLSL has no cooperative matrices: naga's backend gives up on them, and such variants
/// are never offered on DX12. Metal has those of 8 × 8, and is never offered those of 16 × 16.
#[test]
fn every_shader_can_be_written_for_metal_and_dx12() {
    let (mut written, mut matrices) = (0, 0);
    for (what, variant, module, info) in every_module() {
        let has_matrices = module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }));
        if !has_matrices || variant.matrix == Some(8) {
            for_metal(&what, &module, &info, has_matrices);
            matrices += usize::from(has_matrices);
        }
        if !has_matrices {
            for_dx12(&what, &module, &info);
            written += 1;
        }
    }
    assert!(written > 50 && matrices > 3, "{written} shaders, {matrices} with matrices");
}

fn for_metal(what: &str, module: &Module, info: &ModuleInfo, has_matrices: bool) {
    let options = msl::Options { lang_version: (2, 4), ..msl::Options::default() };
    let (text, told) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|why| panic!("{what} for Metal: {why}"));
    assert!(text.contains("kernel void") && told.entry_point_names.iter().all(Result::is_ok), "{what} for Metal");
    assert_eq!(text.contains("simdgroup_half8x8"), has_matrices, "{what} for Metal");
}

fn for_dx12(what: &str, module: &Module, info: &ModuleInfo) {
    // The least with f16.
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..hlsl::Options::default() };
    let pipeline = hlsl::PipelineOptions::default();
    let mut text = String::new();
    let told = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|why| panic!("{what} for DX12: {why}"));
    assert!(text.contains("numthreads") && told.entry_point_names.iter().all(Result::is_ok), "{what} for DX12");
}
