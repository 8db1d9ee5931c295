//! The driver's side of a load: `ready`, a line to begin, a line of figures, and the end of input to end.

use std::io::{self, Write as _};

use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

pub struct Gate(BufReader<Stdin>);

impl Gate {
    /// Says that all is ready and waits for the driver.
    pub async fn open() -> io::Result<Self> {
        let mut gate = Self(BufReader::new(tokio::io::stdin()));
        say("ready")?;
        gate.wait().await?;
        Ok(gate)
    }

    /// For a line, or the end.
    pub async fn wait(&mut self) -> io::Result<()> {
        self.0.read_line(&mut String::new()).await.map(drop)
    }
}

pub fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
