//! For the tests of the commands: a host that says what it was told to say.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

/// Gives each connection the next of the answers. Returns the host's address, and the first lines of the requests that it
/// got, each with its body if there was one, once all answers are given.
pub(super) fn scripted_host(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |answer: String| {
        let (mut connection, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let head: Vec<String> =
            reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        connection.write_all(answer.as_bytes()).unwrap();
        format!("{} {}", head[0], String::from_utf8(body).unwrap()).trim_end().to_owned()
    };
    (address, thread::spawn(|| answers.into_iter().map(answer).collect()))
}
