//! What each backend finds to compute on, and what to install where it finds nothing.
//!
//! Burn's GPU backends panic where their driver is missing, so that it is looked for first.

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A GPU.
    Gpu,
    /// The CPU.
    Cpu,
    /// The CPU, which a driver makes look like a GPU.
    SoftwareGpu,
}

/// That a backend finds no device, and what it needs.
pub(super) type NoDevice = String;

#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]
fn no_device(what: &str, install: &str) -> NoDevice {
    format!("no {what}: install {install}")
}

/// The CPU, on which the backend needs no driver.
#[cfg(any(feature = "ndarray", feature = "flex"))]
pub(super) fn cpu() -> Vec<(String, Kind)> {
    vec![("the CPU".to_owned(), Kind::Cpu)]
}

/// Each device's name alone.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
pub(super) fn named<D>(
    found: Result<Vec<(String, Kind, D)>, NoDevice>,
) -> Result<Vec<(String, Kind)>, NoDevice> {
    let found = found?.into_iter();
    Ok(found.map(|(name, kind, _)| (name, kind)).collect())
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
mod adapters {
    use burn::backend::wgpu::WgpuDevice;
    use burn::backend::wgpu::graphics::{AutoGraphicsApi, GraphicsApi};
    use burn::tensor::read_sync;
    use sentence_burn::wgpu::{Backends, DeviceType, Instance, InstanceDescriptor};

    use super::{Kind, NoDevice, no_device};

    fn no_adapter() -> NoDevice {
        match cfg!(target_os = "macos") {
            true => no_device(
                "Metal device",
                "macOS 10.13 or later on a machine with a GPU",
            ),
            false => no_device(
                "Vulkan device",
                "libvulkan1 and the graphics card's Vulkan driver, or mesa-vulkan-drivers, which \
                 also has one that computes on the CPU (the packages of Debian)",
            ),
        }
    }

    /// The adapters of the graphics API that Burn takes on this system, as Burn numbers them.
    pub(in super::super) fn wgpu() -> Result<Vec<(String, Kind, WgpuDevice)>, NoDevice> {
        let instance = Instance::new(InstanceDescriptor {
            backends: Backends::from(AutoGraphicsApi::backend()),
            ..InstanceDescriptor::new_without_display_handle()
        });
        let backends = Backends::from(AutoGraphicsApi::backend());
        let adapters = read_sync(instance.enumerate_adapters(backends));
        let mut counts = [0; 3];
        let mut next = |of: usize| {
            counts[of] += 1;
            counts[of] - 1
        };
        let found = adapters.iter().map(|adapter| {
            let info = adapter.get_info();
            let (kind, device) = match info.device_type {
                DeviceType::DiscreteGpu => (Kind::Gpu, WgpuDevice::DiscreteGpu(next(0))),
                DeviceType::IntegratedGpu => (Kind::Gpu, WgpuDevice::IntegratedGpu(next(1))),
                DeviceType::VirtualGpu => (Kind::Gpu, WgpuDevice::VirtualGpu(next(2))),
                DeviceType::Cpu => (Kind::SoftwareGpu, WgpuDevice::Cpu),
                DeviceType::Other => (Kind::Gpu, WgpuDevice::DefaultDevice),
            };
            (format!("{} ({:?})", info.name, info.backend), kind, device)
        });
        let found: Vec<_> = found.collect();
        match found.is_empty() {
            true => Err(no_adapter()),
            false => Ok(found),
        }
    }

    /// The device of that number, or the one that Burn takes for the best.
    pub(in super::super) fn wgpu_device(index: Option<usize>) -> Result<WgpuDevice, NoDevice> {
        let mut found = wgpu()?;
        match index {
            Some(index) if index < found.len() => Ok(found.swap_remove(index).2),
            Some(_) => Err(no_adapter()),
            None => Ok(WgpuDevice::DefaultDevice),
        }
    }
}
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
pub(super) use adapters::{wgpu, wgpu_device};

/// NVIDIA's GPUs.
#[cfg(feature = "cuda")]
pub(super) fn cuda() -> Result<Vec<(String, Kind)>, NoDevice> {
    counted::<burn::backend::Cuda>(
        "CUDA",
        no_device(
            "CUDA device",
            "NVIDIA's driver (libcuda.so.1) and the CUDA toolkit's runtime compiler \
                      (libnvrtc.so)",
        ),
    )
}

/// AMD's GPUs.
#[cfg(feature = "rocm")]
pub(super) fn rocm() -> Result<Vec<(String, Kind)>, NoDevice> {
    counted::<burn::backend::Rocm>(
        "ROCm",
        no_device(
            "ROCm device",
            "AMD's driver and ROCm (libamdhip64.so and libhiprtc.so)",
        ),
    )
}

/// The devices of a backend that knows their number alone, and panics without its driver.
#[cfg(any(feature = "cuda", feature = "rocm"))]
fn counted<B: burn::tensor::backend::Backend>(
    name: &str,
    none: NoDevice,
) -> Result<Vec<(String, Kind)>, NoDevice> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let count = std::panic::catch_unwind(|| B::device_count(0));
    std::panic::set_hook(hook);
    match count {
        Err(_) | Ok(0) => Err(none),
        Ok(count) => Ok((0..count)
            .map(|index| (format!("{name} device {index}"), Kind::Gpu))
            .collect()),
    }
}
