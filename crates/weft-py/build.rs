//! Makes `cfg(Py_3_12)` and its like available to the crate.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
