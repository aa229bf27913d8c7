//! The backend and the device that an example computes on, chosen when it runs.

mod devices;

use std::error::Error;
use std::process::ExitCode;

use burn::tensor::backend::Backend;
use clap::{Args, Parser, ValueEnum};

use devices::{Kind, NoDevice};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda,
    /// An AMD GPU.
    #[cfg(feature = "rocm")]
    Rocm,
    /// A GPU through Metal.
    #[cfg(feature = "metal")]
    Metal,
    /// A GPU through Vulkan.
    #[cfg(feature = "vulkan")]
    Vulkan,
    /// A GPU through WebGPU.
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// The CPU.
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// The CPU, by Burn's newer backend.
    #[cfg(feature = "flex")]
    Flex,
}

/// Which backend, and which of its devices.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct BackendArgs {
    /// Where to compute; without it, the best of those compiled in that finds its device: a
    /// GPU before the CPU.
    #[arg(long, value_enum)]
    backend: Option<BackendName>,
    /// Which of the backend's devices, as --list-devices numbers them.
    #[arg(long, value_name = "N")]
    device: Option<usize>,
    /// Show the devices of every backend compiled in, and end.
    #[arg(long)]
    list_devices: bool,
}

/// The arguments; or, if they ask for it, the list of devices and the end.
pub(crate) fn parse<A: Parser>() -> A {
    // Before what else is asked for, which a list of devices does not need.
    if std::env::args().any(|argument| argument == "--list-devices") {
        list_devices();
        std::process::exit(0);
    }
    A::parse()
}

fn list_devices() {
    for backend in BackendName::value_variants() {
        match backend.devices() {
            Ok(found) => {
                for (index, (name, _)) in found.iter().enumerate() {
                    println!("--backend {} --device {index}: {name}", backend.name());
                }
            }
            Err(missing) => println!("--backend {}: {missing}", backend.name()),
        }
    }
}

impl BackendArgs {
    /// Does the job where they say, and tells how it went.
    pub(crate) fn run<J: Job>(self, job: J) -> ExitCode {
        let warnings = env_logger::Env::default().default_filter_or("warn");
        env_logger::Builder::from_env(warnings).init();
        match self
            .backend()
            .and_then(|backend| backend.dispatch(self.device, job))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn backend(self) -> Result<BackendName, Box<dyn Error>> {
        if let Some(backend) = self.backend {
            return Ok(backend);
        }
        let found: Vec<(BackendName, Vec<(String, Kind)>)> = BackendName::value_variants()
            .iter()
            .filter_map(|&backend| Some((backend, backend.devices().ok()?)))
            .collect();
        let with = |kind: Kind| {
            let has = |devices: &[(String, Kind)]| devices.iter().any(|device| device.1 == kind);
            found.iter().find(|(_, devices)| has(devices))
        };
        // A driver that computes on the CPU is slower there than a backend for it.
        let best = [Kind::Gpu, Kind::Cpu, Kind::SoftwareGpu]
            .into_iter()
            .find_map(with);
        match best {
            Some((backend, _)) => Ok(*backend),
            None => Err("no backend finds a device: see --list-devices".into()),
        }
    }
}

impl BackendName {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The backend's devices by name, at least one.
    fn devices(self) -> Result<Vec<(String, Kind)>, NoDevice> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => devices::cuda(),
            #[cfg(feature = "rocm")]
            Self::Rocm => devices::rocm(),
            #[cfg(feature = "metal")]
            Self::Metal => devices::named(devices::wgpu()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => devices::named(devices::wgpu()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => devices::named(devices::wgpu()),
            #[cfg(feature = "ndarray")]
            Self::Ndarray => Ok(devices::cpu()),
            #[cfg(feature = "flex")]
            Self::Flex => Ok(devices::cpu()),
        }
    }

    fn dispatch<J: Job>(self, device: Option<usize>, job: J) -> Result<(), Box<dyn Error>> {
        let found = self.devices()?;
        let index = device.unwrap_or(0);
        if index >= found.len() {
            let (name, known) = (self.name(), found.len());
            return Err(format!("--device {index}: {name} has {known}; see --list-devices").into());
        }
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => {
                job.run::<burn::backend::Cuda>(burn::backend::cuda::CudaDevice::new(index))
            }
            #[cfg(feature = "rocm")]
            Self::Rocm => {
                job.run::<burn::backend::Rocm>(burn::backend::rocm::RocmDevice::new(index))
            }
            #[cfg(feature = "metal")]
            Self::Metal => job.run::<burn::backend::Metal>(devices::wgpu_device(device)?),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => job.run::<burn::backend::Vulkan>(devices::wgpu_device(device)?),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => job.run::<burn::backend::Wgpu>(devices::wgpu_device(device)?),
            #[cfg(feature = "ndarray")]
            Self::Ndarray => job.run::<burn::backend::NdArray>(Default::default()),
            #[cfg(feature = "flex")]
            Self::Flex => job.run::<burn::backend::Flex>(Default::default()),
        }
    }
}

/// Something to do on whichever backend is chosen.
pub(crate) trait Job {
    /// Does it.
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>>;
}
