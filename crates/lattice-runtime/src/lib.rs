//! Devices, threads and memory budgets.

use candle_core::Device;

/// The device that activations live on.
pub fn default_device() -> Device {
    Device::Cpu
}
