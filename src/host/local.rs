//! Programs on the machine that runs stor: to their end with a deadline, or long-lived.
//!
//! Imports `model`. For local tools and the lab; a host of the cluster is never reached through here.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use super::{HostError, secrets};
use crate::model::{Answer, Command, HostId, Output, Stdin};

/// Time for a killed program to end.
const REAP: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs a program to its end; a status other than 0 is an answer.
///
/// # Errors
/// [`HostError::Local`] when it cannot be started.
pub fn ask(command: &Command) -> Result<Answer, HostError> {
    let action = |what: &str| format!("{what} {}", command.program);
    let failed = |what: &str| {
        let action = action(what);
        move |source| HostError::Local { action, source }
    };
    let expression = secrets::withheld(duct::cmd(command.program, &command.args))
        .env("LC_ALL", "C")
        .stdout_capture()
        .stderr_capture()
        .unchecked();
    let expression = match &command.stdin {
        Stdin::Empty => expression.stdin_null(),
        Stdin::Text(text) => expression.stdin_bytes(text.clone()),
        Stdin::Secret(secret) => expression.stdin_bytes(secret.reveal()),
    };
    let handle = expression.start().map_err(failed("start"))?;
    let Some(output) = handle.wait_timeout(command.deadline).map_err(failed("wait for"))? else {
        handle.kill().map_err(failed("end"))?;
        handle.wait_timeout(REAP).map_err(failed("wait for"))?;
        return Ok(Answer { status: None, stdout: String::new(), stderr: String::new() });
    };
    Ok(Answer {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program to its end; only status 0 is success.
///
/// # Errors
/// [`HostError`] of the host `localhost` when it cannot be started, fails, or does not end in time.
pub fn run(command: &Command) -> Result<Output, HostError> {
    #[expect(clippy::expect_used, reason = "the text is a valid name")]
    let here = HostId::new("localhost").expect("localhost is a name");
    super::judge(&here, command, ask(command)?)
}

/// Starts a program that outlives this call, in a session of its own, with both outputs appended to `log`.
///
/// # Errors
/// [`HostError::Local`] when the log cannot be opened or the program not started.
#[expect(clippy::disallowed_methods, reason = "this is where processes start")]
pub fn spawn(command: &Command, environment: &[(&str, &str)], log: &Path) -> Result<Child, HostError> {
    let open = || File::options().create(true).append(true).open(log);
    let local = |action: String| move |source| HostError::Local { action, source };
    let out = open().map_err(local(format!("open {}", log.display())))?;
    let err = out.try_clone().map_err(local(format!("open {}", log.display())))?;
    let mut program = std::process::Command::new("setsid");
    secrets::hidden().iter().for_each(|name| _ = program.env_remove(name));
    program
        .arg("--")
        .arg(command.program)
        .args(&command.args)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(local(format!("start {}", command.program)))
}

/// Runs a program on the caller's terminal to its end, without a deadline: a person works in it.
///
/// # Errors
/// [`HostError::Local`] when it cannot be started.
#[expect(clippy::disallowed_methods, reason = "this is where processes start")]
pub fn interactive(command: &Command) -> Result<ExitStatus, HostError> {
    let mut program = std::process::Command::new(command.program);
    secrets::hidden().iter().for_each(|name| _ = program.env_remove(name));
    program
        .args(&command.args)
        .status()
        .map_err(|source| HostError::Local { action: format!("start {}", command.program), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_program_past_its_deadline_is_killed() {
        let begin = Instant::now();
        let sleep = Command::new("sleep").arg("30").deadline(Duration::from_millis(200));
        assert!(matches!(run(&sleep), Err(HostError::Deadline { .. })));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn standard_input_arrives_and_a_failure_shows_the_end_of_standard_error() {
        let cat = Command::new("cat").stdin(Stdin::Text("a\n".into()));
        assert_eq!(run(&cat).unwrap().stdout, "a\n");
        let bad = Command::new("ls").arg("/does/not/exist");
        assert!(
            matches!(run(&bad), Err(HostError::Failed { stderr, .. }) if stderr.contains("No such file"))
        );
    }
}
