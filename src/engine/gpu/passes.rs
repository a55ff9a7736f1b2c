//! Shaders as pipelines, and putting their passes into a command buffer. The one place that trusts shaders: drivers unroll
//! loops badly when every access is checked, so the checks are off and every index is bounded by the shaders themselves.

#![allow(unsafe_code)]

use super::device::Device;
use super::variant::Variant;
use crate::error::EngineError;

/// Workgroups along the first axis of a dispatch: the least that every adapter allows is 65,535.
const GROUPS_MAX: u32 = 32_768;

/// How a shader uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

/// A compiled shader.
#[derive(Debug)]
pub(super) struct Pass {
    label: &'static str,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// The token for features that wgpu calls experimental; only cooperative matrices ask for it.
pub(super) fn experimental(variant: &Variant) -> wgpu::ExperimentalFeatures {
    if variant.is_cooperative() {
        // SAFETY: the token asks that known defects of such features be avoided; the cooperative shader keeps to loads,
        // multiply-adds and stores of whole matrices inside their buffers, and is checked against the CPU at start-up.
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    }
}

impl Pass {
    /// Compiles a shader whose bindings are these storage buffers and then its params.
    pub fn new(device: &Device, label: &'static str, source: String, uses: &[Use]) -> Result<Self, EngineError> {
        device.checked(label, |gpu| {
            let descriptor =
                wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(source.into()) };
            // SAFETY: every loop of the shaders ends, and every index is below the length of its buffer: rows, tiles,
            // positions and slots are checked in the shader against the params, which follow from the buffers' sizes.
            let module =
                unsafe { gpu.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
            let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
                binding: u32::try_from(binding).unwrap_or(u32::MAX),
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            };
            let storage = |how: &Use| wgpu::BufferBindingType::Storage { read_only: *how == Use::Read };
            let mut entries: Vec<_> = uses.iter().enumerate().map(|(i, how)| entry(i, storage(how))).collect();
            entries.push(entry(uses.len(), wgpu::BufferBindingType::Uniform));
            let layout = gpu
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries });
            let pipeline_layout = gpu.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(label),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Self { label, pipeline, layout }
        })
    }

    /// Adds this pass over so many workgroups.
    pub fn add<P: bytemuck::Pod>(
        &self,
        device: &Device,
        commands: &mut wgpu::CommandEncoder,
        buffers: &[&wgpu::Buffer],
        params: &P,
        workgroups: u32,
    ) {
        if workgroups == 0 {
            return;
        }
        let gpu = &device.gpu;
        let params = device.filled(self.label, bytemuck::bytes_of(params), wgpu::BufferUsages::UNIFORM);
        let entries: Vec<_> = buffers
            .iter()
            .copied()
            .chain([&params])
            .enumerate()
            .map(|(i, buffer)| wgpu::BindGroupEntry {
                binding: u32::try_from(i).unwrap_or(u32::MAX),
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.label),
            layout: &self.layout,
            entries: &entries,
        });
        let descriptor = wgpu::ComputePassDescriptor { label: Some(self.label), timestamp_writes: None };
        let mut pass = commands.begin_compute_pass(&descriptor);
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(workgroups.min(GROUPS_MAX), workgroups.div_ceil(GROUPS_MAX), 1);
    }
}
