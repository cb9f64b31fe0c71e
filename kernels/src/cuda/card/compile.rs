//! Kernels to machine code, by NVRTC. This needs no card.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::libraries::Library;
use crate::cuda::{PRELUDE, Source};
use crate::{Error, Result};

/// What the compiler is told beside the architecture. Sums are contracted where the kernel says so and nowhere else: the bits
/// are part of the contract.
pub(super) const OPTIONS: [&str; 3] = ["--std=c++17", "--fmad=false", "--ptxas-options=-v"];

/// A kernel's use of registers, as the assembler reports it.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) kernel: String,
    pub(super) registers: u32,
    /// Bytes of a thread that lie in memory for want of registers.
    pub(super) spilled: u32,
}

/// The machine code of a file.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) code: Vec<u8>,
    #[cfg(test)]
    pub(super) usage: Vec<Usage>,
}

/// Compiles a file for an architecture such as `sm_90a`.
pub(super) fn compile(source: &Source, arch: &str) -> Result<Compiled> {
    Library::Nvrtc.required()?;
    let text = CString::new(format!("{PRELUDE}\n#line 1 \"{}/kernel.cu\"\n{}", source.name, source.text));
    let text = text.map_err(|_| failed(source, arch, "the text holds a zero byte"))?;
    let program = Program(result::create_program(&text, None).map_err(|e| failed(source, arch, &e.to_string()))?);
    let arch_option = format!("--gpu-architecture={arch}");
    let options = [&[arch_option.as_str()], &OPTIONS[..]].concat();
    // SAFETY: the program lives until the end of this function.
    let done = unsafe { result::compile_program(program.0, &options) };
    let log = program.log();
    done.map_err(|e| failed(source, arch, &format!("{e}\n{log}")))?;
    let code = program.code().map_err(|e| failed(source, arch, &e.to_string()))?;
    Ok(Compiled {
        code,
        #[cfg(test)]
        usage: usage(&log),
    })
}

fn failed(source: &Source, arch: &str, reason: &str) -> Error {
    Error::Device(format!("{}/kernel.cu does not compile for {arch}: {reason}", source.name))
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes = log.into_iter().take_while(|&c| c != 0).map(c_char::cast_unsigned).collect();
        String::from_utf8(bytes).unwrap_or_default()
    }

    fn code(&self) -> std::result::Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program is alive and compiled; the buffer has the size that it says.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &raw mut size).result()?;
            let mut code = vec![0u8; size];
            sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()).result()?;
            Ok(code)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: nobody uses the program any more.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Reads what `ptxas -v` writes: a line with the kernel, one with its spills, one with its registers.
#[cfg(test)]
fn usage(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Usage { kernel, registers: 0, spilled: 0 });
        }
        let Some(last) = found.last_mut() else { continue };
        // What spills lies in the stack frame, and so do arrays whose places are not known beforehand.
        if let Some(bytes) = number_before(line, " bytes stack frame") {
            last.spilled = bytes;
        }
        if let Some(bytes) = number_before(line, " bytes spill stores") {
            last.spilled = last.spilled.max(bytes);
        }
        if let Some(registers) = number_before(line, " registers") {
            last.registers = registers;
        }
    }
    found
}

/// `12` in `Used 12 registers`.
#[cfg(test)]
fn number_before(line: &str, words: &str) -> Option<u32> {
    line.split_once(words)?.0.rsplit([' ', ',']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TWICE: Source = Source {
        name: "twice",
        text: "extern \"C\" __global__ void twice(float* x, u32 n) {\n    u32 i = blockIdx.x * blockDim.x + threadIdx.x;\n    if (i < n) x[i] = 2.0f * warp_sum(x[i]);\n}\n",
    };

    #[test]
    fn a_kernel_becomes_machine_code_for_every_architecture() {
        if Library::Nvrtc.open().is_err() {
            eprintln!("skipped: there is no NVRTC; set MLLM4REC_CUDA_LIBS to its folder");
            return;
        }
        for arch in ["sm_80", "sm_89", "sm_90a"] {
            let compiled = compile(&TWICE, arch).unwrap();
            assert!(compiled.code.starts_with(b"\x7fELF"), "{arch}");
            let [usage] = &compiled.usage[..] else { panic!("{:?}", compiled.usage) };
            assert_eq!((usage.kernel.as_str(), usage.spilled), ("twice", 0));
            assert!((1..=64).contains(&usage.registers), "{usage:?}");
        }
        let wrong = Source { text: "extern \"C\" __global__ void f() { nothing(); }", ..TWICE };
        let error = compile(&wrong, "sm_80").unwrap_err().to_string();
        assert!(error.contains("twice/kernel.cu") && error.contains("nothing"), "{error}");
    }

    #[test]
    fn what_the_assembler_reports_is_read() {
        let log = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'twice' for 'sm_90a'\n\
                   ptxas info    : Function properties for twice\n    0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n\
                   ptxas info    : Used 12 registers, used 1 barriers, 392 bytes cmem[0]\n";
        assert_eq!(usage(log), [Usage { kernel: "twice".to_owned(), registers: 12, spilled: 4 }]);
    }
}
