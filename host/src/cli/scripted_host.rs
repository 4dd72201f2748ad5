//! For the tests of the commands: a host that says what it was told to say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

/// Gives each connection the next of the answers. Returns the host's address, and the first lines of the requests that it
/// got, once all answers are given.
pub(super) fn scripted_host(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |answer: String| {
        let (mut connection, _) = listener.accept().unwrap();
        let request: Vec<String> = BufReader::new(connection.try_clone().unwrap())
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        connection.write_all(answer.as_bytes()).unwrap();
        request[0].clone()
    };
    (address, thread::spawn(|| answers.into_iter().map(answer).collect()))
}
