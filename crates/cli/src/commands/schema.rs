//! `tollgate policy schema`

use crate::exit::{Code, Outcome};
use crate::output::json;

/// Shows the schema. It is JSON whatever the format, so there is no choice of one.
pub fn run() -> Outcome {
    let out = &mut std::io::stdout().lock();
    json(out, &tollgate_policy::json_schema())?;
    Ok(Code::Ok)
}
