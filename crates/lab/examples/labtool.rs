//! Temporary.
use tollgate_lab::lab;
fn main() {
    let mut o = lab::UpOptions::default();
    if let Some(k) = std::env::args().nth(1) {
        o.outside = k.parse().unwrap();
    }
    match lab::up(&o) {
        Ok(l) => l.keep(),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1)
        }
    }
}
