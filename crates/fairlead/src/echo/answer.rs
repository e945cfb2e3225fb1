//! How the program is told to answer otherwise: a small file, read at each request.
//!
//! Invariant: without the file, or with one that cannot be read, the program answers normally.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Normal,
    Status(u16),
    Grpc(u32),
    Reset,
    Delay(Duration),
}

pub struct Answers {
    file: Option<PathBuf>,
}

impl Answers {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    pub fn current(&self) -> Answer {
        let Some(file) = &self.file else { return Answer::Normal };
        std::fs::read_to_string(file).map_or(Answer::Normal, |text| parse(text.trim()))
    }
}

fn parse(text: &str) -> Answer {
    if let Some(delay) = text.strip_prefix("delay ") {
        return fairlead_calls::given::duration(delay).map_or(Answer::Normal, Answer::Delay);
    }
    if let Some(code) = text.strip_prefix("grpc-") {
        return code.parse().map_or(Answer::Normal, Answer::Grpc);
    }
    if text == "reset" {
        return Answer::Reset;
    }
    text.parse().map_or(Answer::Normal, Answer::Status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(parse("503"), Answer::Status(503));
        assert_eq!(parse("grpc-14"), Answer::Grpc(14));
        assert_eq!(parse("reset"), Answer::Reset);
        assert_eq!(parse("delay 2s"), Answer::Delay(Duration::from_secs(2)));
        assert_eq!(parse("?"), Answer::Normal);
    }
}
