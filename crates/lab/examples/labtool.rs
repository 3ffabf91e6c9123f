//! Temporary.
use tollgate_lab::lab;
fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lab", "traffic", ..] => return tollgate_lab::traffic::main(&args[2..]),
        ["up", kind] => {
            let o = lab::UpOptions { outside: kind.parse().unwrap(), ..Default::default() };
            match lab::up(&o) { Ok(l) => l.keep(), Err(e) => { eprintln!("{e}"); std::process::exit(1) } }
        }
        ["down"] => lab::down("lab").unwrap(),
        _ => panic!(),
    }
    std::process::ExitCode::SUCCESS
}
