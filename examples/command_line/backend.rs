use std::error::Error;
use std::process::ExitCode;

use burn::tensor::backend::Backend;
use clap::ValueEnum;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// The CPU.
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// The CPU, by Burn's newer backend.
    #[cfg(feature = "flex")]
    Flex,
    /// A GPU through WebGPU.
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// A GPU through Vulkan.
    #[cfg(feature = "vulkan")]
    Vulkan,
    /// A GPU through Metal.
    #[cfg(feature = "metal")]
    Metal,
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda,
    /// An AMD GPU.
    #[cfg(feature = "rocm")]
    Rocm,
}

impl BackendName {
    /// The first backend compiled in.
    pub(crate) fn first() -> Self {
        Self::value_variants()[0]
    }

    /// Does the job on this backend's default device, and tells how it went.
    pub(crate) fn run<J: Job>(self, job: J) -> ExitCode {
        let warnings = env_logger::Env::default().default_filter_or("warn");
        env_logger::Builder::from_env(warnings).init();
        match self.dispatch(job) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn dispatch<J: Job>(self, job: J) -> Result<(), Box<dyn Error>> {
        match self {
            #[cfg(feature = "ndarray")]
            Self::Ndarray => job.run::<burn::backend::NdArray>(Default::default()),
            #[cfg(feature = "flex")]
            Self::Flex => job.run::<burn::backend::Flex>(Default::default()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => job.run::<burn::backend::Wgpu>(Default::default()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => job.run::<burn::backend::Vulkan>(Default::default()),
            #[cfg(feature = "metal")]
            Self::Metal => job.run::<burn::backend::Metal>(Default::default()),
            #[cfg(feature = "cuda")]
            Self::Cuda => job.run::<burn::backend::Cuda>(Default::default()),
            #[cfg(feature = "rocm")]
            Self::Rocm => job.run::<burn::backend::Rocm>(Default::default()),
        }
    }
}

/// Something to do on whichever backend is chosen.
pub(crate) trait Job {
    /// Does it.
    fn run<B: Backend>(self, device: B::Device) -> Result<(), Box<dyn Error>>;
}
