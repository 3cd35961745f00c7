//! Baseline of `scripts/bench ask`: how long a Rust program takes to write a CSV table that it has in memory.
//!
//! `bench_csv TABLE` reads a CSV file into typed cells, untimed, then writes the same table to /dev/null through a
//! buffered writer and prints the seconds that took.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

enum Cell {
    Float(f64),
    Integer(i64),
    Text(String),
}

fn main() {
    let path = std::env::args().nth(1).expect("usage: bench_csv TABLE");
    let table = parse(&std::fs::read_to_string(path).expect("the table is UTF-8"));
    let start = Instant::now();
    let mut out = BufWriter::with_capacity(1 << 20, File::create("/dev/null").unwrap());
    for row in &table {
        for (column, cell) in row.iter().enumerate() {
            if column > 0 {
                out.write_all(b",").unwrap();
            }
            match cell {
                Cell::Float(value) => write!(out, "{value}").unwrap(),
                Cell::Integer(value) => write!(out, "{value}").unwrap(),
                Cell::Text(text) if text.contains([',', '"', '\n', '\r']) => {
                    write!(out, "\"{}\"", text.replace('"', "\"\"")).unwrap();
                }
                Cell::Text(text) => out.write_all(text.as_bytes()).unwrap(),
            }
        }
        out.write_all(b"\r\n").unwrap();
    }
    out.flush().unwrap();
    println!("{}", start.elapsed().as_secs_f64());
}

fn parse(text: &str) -> Vec<Vec<Cell>> {
    let mut table = Vec::new();
    let mut row = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(typed(std::mem::take(&mut cell))),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(typed(std::mem::take(&mut cell)));
                table.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    table
}

fn typed(cell: String) -> Cell {
    if let Ok(value) = cell.parse() {
        Cell::Integer(value)
    } else if let Ok(value) = cell.parse() {
        Cell::Float(value)
    } else {
        Cell::Text(cell)
    }
}
