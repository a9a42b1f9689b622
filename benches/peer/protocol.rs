//! The line protocol of a peer (`benches/peers/README.md`), and what the system says of its memory.

use serde_json::Value;
use std::io::BufRead;

/// Says that all is loaded, then answers `step` and `peak` until `quit` or the end of the input.
/// The reply to `peak` is the peak resident memory, `runtime` (resident before anything was
/// loaded), and what `peak` adds.
pub fn serve(mut step: impl FnMut() -> Value, runtime: u64, peak: impl Fn() -> Value) {
    let sets = wmtp_kernels::Isa::chosen().map_or_else(str::to_owned, |isa| isa.title().to_owned());
    println!("{}", serde_json::json!({"ready": true, "instruction_sets": sets}));
    for line in std::io::stdin().lock().lines() {
        match line.expect("a request").trim() {
            "step" => println!("{}", step()),
            "peak" => {
                let mut reply = serde_json::json!({"peak_bytes": status_bytes("VmHWM"), "runtime_bytes": runtime});
                if let (Value::Object(reply), Value::Object(more)) = (&mut reply, peak()) {
                    reply.extend(more);
                }
                println!("{reply}");
            }
            "quit" => return,
            other => panic!("unknown request {other:?}: step, peak and quit are known"),
        }
    }
}

/// A figure of `/proc/self/status` in bytes: `VmHWM` is the peak, `VmRSS` the present; 0 where there is none.
pub fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Makes `VmHWM` start again at the present `VmRSS`, where the system allows it.
pub fn reset_peak() {
    // Elsewhere the peak stays what it was, which is never too little.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
