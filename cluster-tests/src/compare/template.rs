//! The language of the command templates: words divided by blanks.
//!
//! - `SET` stands for itself, `$name` for what [`super::words`] makes of that name;
//! - `( a | b )` is one of the alternatives, `[ a ]` may be left out;
//! - `{ a }` comes one to three times;
//! - `< a | b | c >` is any choice of the alternatives in any order, now and then one of them twice, so that
//!   options also meet which exclude each other;
//! - `;` divides commands that belong together.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::words::{Args, Words};

#[derive(Clone, Debug)]
enum Part {
    Word(String),
    Hole(String),
    Optional(Vec<Self>),
    Choice(Vec<Vec<Self>>),
    Repeated(Vec<Self>),
    Options(Vec<Vec<Self>>),
}

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    commands: Vec<Vec<Part>>,
}

impl Template {
    /// Parses a template; panics on a bad one, since they are all constants.
    pub fn parse(text: &str) -> Self {
        let commands = text
            .split(" ; ")
            .map(|command| {
                let mut words = command.split_whitespace();
                let mut alternatives = parse_until(&mut words, None);
                assert_eq!(alternatives.len(), 1, "a bar outside of brackets in {text:?}");
                alternatives.remove(0)
            })
            .collect();
        Self { commands }
    }

    /// The first word in capitals.
    pub fn command_name(&self) -> String {
        match self.commands[0].first() {
            Some(Part::Word(word)) => word.to_ascii_uppercase(),
            other => panic!("a template starts with {other:?}"),
        }
    }

    /// Makes the commands, filling in what the template leaves open.
    pub fn expand(&self, rng: &mut SmallRng) -> Vec<Args> {
        let mut words = Words::default();
        let mut fill = |parts: &Vec<Part>| {
            let mut args = Args::new();
            expand(parts, rng, &mut words, &mut args);
            args
        };
        self.commands.iter().map(&mut fill).collect()
    }
}

/// Parses up to the closing word; the result has one list of parts per alternative.
fn parse_until<'a>(words: &mut impl Iterator<Item = &'a str>, close: Option<&str>) -> Vec<Vec<Part>> {
    let mut alternatives = vec![Vec::new()];
    while let Some(word) = words.next() {
        if Some(word) == close {
            return alternatives;
        }
        let part = match word {
            "|" => {
                alternatives.push(Vec::new());
                continue;
            }
            "(" => Part::Choice(parse_until(words, Some(")"))),
            "<" => Part::Options(parse_until(words, Some(">"))),
            "[" => Part::Optional(parse_until(words, Some("]")).remove(0)),
            "{" => Part::Repeated(parse_until(words, Some("}")).remove(0)),
            _ => match word.strip_prefix('$') {
                Some(name) if !name.is_empty() => Part::Hole(name.to_owned()),
                _ => Part::Word(word.to_owned()),
            },
        };
        alternatives.last_mut().expect("starts with one").push(part);
    }
    assert_eq!(close, None, "an open bracket");
    alternatives
}

fn expand(parts: &[Part], rng: &mut SmallRng, words: &mut Words, out: &mut Args) {
    for part in parts {
        match part {
            Part::Word(word) => out.push(word.as_bytes().to_vec()),
            Part::Hole(name) => words.fill(name, rng, out),
            Part::Optional(inner) => {
                if rng.random_bool(0.4) {
                    expand(inner, rng, words, out);
                }
            }
            Part::Choice(alternatives) => {
                let chosen = alternatives.choose(rng).expect("a choice has alternatives");
                expand(chosen, rng, words, out);
            }
            Part::Repeated(inner) => {
                expand(inner, rng, words, out);
                for _ in 0..2 {
                    if rng.random_bool(0.4) {
                        expand(inner, rng, words, out);
                    }
                }
            }
            Part::Options(alternatives) => {
                let share = (1.2 / alternatives.len() as f64).min(0.5);
                let mut chosen: Vec<_> = alternatives.iter().filter(|_| rng.random_bool(share)).collect();
                if rng.random_bool(0.03) {
                    chosen.extend(alternatives.choose(rng));
                }
                chosen.shuffle(rng);
                for option in chosen {
                    expand(option, rng, words, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_template_expands_to_commands_of_its_shape() {
        let template = Template::parse("SET k ( a | b ) < NX | GET > ; DEL k");
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..200 {
            let commands = template.expand(&mut rng);
            assert_eq!(commands.len(), 2);
            assert!(commands[0].len() <= 6);
            assert!([b"a", b"b"].contains(&commands[0][2].as_slice().try_into().unwrap()));
            assert_eq!(commands[1], [b"DEL".to_vec(), b"k".to_vec()]);
        }
        assert_eq!(template.command_name(), "SET");
    }

    #[test]
    fn every_template_parses_and_expands() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (_, templates) in super::super::templates::GROUPS {
            for text in *templates {
                for _ in 0..20 {
                    Template::parse(text).expand(&mut rng);
                }
            }
        }
    }
}
