//! The words of the cluster file: what the schema's pattern allows, the program accepts, and what looks like it but is
//! dangerous, neither does.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::string::string_regex;
use proptest::test_runner::{Config, TestRunner};
use stor::model::{AbsPath, ByteSize, HostId};
use stor::spec::input::Scalar;
use stor::spec::scalar::{Address, Bandwidth, Interface, KernelLine, LocalFile, Login, Mac, Span};
use stor::storage::gluster::spec::{BrickWord, OptionName, OptionValue};

/// Words made from the pattern must parse, but for those that `beyond` knows to be out of what a pattern can say.
fn accepts_its_pattern<T: Scalar + Debug>(beyond: fn(&str) -> bool) {
    let pattern = T::PATTERN.trim_start_matches('^').trim_end_matches('$').replace("(?!--)", "");
    let words = string_regex(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let result = runner.run(&words, |word| {
        prop_assert!(
            beyond(&word) || word.parse::<T>().is_ok(),
            "{word:?}: {}",
            word.parse::<T>().err().unwrap()
        );
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}: {error}", T::KIND);
    }
}

#[test]
fn what_the_schema_allows_is_accepted() {
    let never = |_: &str| false;
    let zero_or_huge = |word: &str| {
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().map_or(true, |number| number == 0 || number > 1_000_000)
    };
    accepts_its_pattern::<HostId>(never);
    accepts_its_pattern::<ByteSize>(zero_or_huge);
    accepts_its_pattern::<Bandwidth>(zero_or_huge);
    accepts_its_pattern::<AbsPath>(|word| word.split('/').any(|part| part == ".."));
    accepts_its_pattern::<Address>(|word| {
        word.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
            || word.len() > 253
            || word.split('.').any(|label| label.len() > 63)
    });
    accepts_its_pattern::<Login>(never);
    accepts_its_pattern::<LocalFile>(|word| word.chars().any(char::is_control));
    accepts_its_pattern::<Interface>(never);
    accepts_its_pattern::<Mac>(never);
    accepts_its_pattern::<KernelLine>(never);
    accepts_its_pattern::<Span>(never);
    accepts_its_pattern::<BrickWord>(|word| word.split('/').any(|part| part == ".."));
    accepts_its_pattern::<OptionName>(|word| word.len() > 128);
    accepts_its_pattern::<OptionValue>(|word| word.starts_with("--"));
}

fn refuses<T: Scalar + Debug>(words: &[&str]) {
    for word in words {
        assert!(word.parse::<T>().is_err(), "{word:?} is taken for a {}", T::KIND);
    }
}

#[test]
fn what_a_shell_or_a_tool_could_misread_is_refused() {
    let dangerous = [
        "",
        " ",
        "-x",
        "a b",
        "a;b",
        "a'b",
        "a\"b",
        "a\nb",
        "$(a)",
        "`a`",
        "a&b",
        "a|b",
        "ä",
        "a\0",
        "\u{202e}a",
    ];
    refuses::<HostId>(&dangerous);
    refuses::<Address>(&dangerous);
    refuses::<Address>(&[
        "a_b",
        "a..b",
        ".a",
        "a.",
        "a-",
        "1.2.3",
        "1.2.3.4.5",
        "999.1.1.1",
        "::1",
        "[::1]",
        "a:22",
        "a/24",
        "*",
        "255.255.255.255",
        "224.0.0.1",
    ]);
    refuses::<Login>(&dangerous);
    refuses::<Interface>(&dangerous);
    refuses::<Interface>(&["sixteen-letters1", ".", "br/0", ".br0"]);
    refuses::<Mac>(&[
        "52:54:00:00:00",
        "52:54:00:00:00:00:00",
        "53:54:00:00:00:01",
        "52-54-00-00-00-01",
        "+2:54:00:00:00:01",
        "52:54:00:00:00:0g",
    ]);
    refuses::<KernelLine>(&["a\nb", "a\tb", "é"]);
    refuses::<LocalFile>(&["", "a\nb", "a\"b", "%h", "${HOME}/x"]);
    refuses::<Bandwidth>(&["", "None", "unlimited", "10", "10MiB", "0MiB/s", "1GiB/h"]);
    refuses::<Span>(&["", "0", "300", "-1s", "soon", "1 fortnight"]);
    refuses::<BrickWord>(&[
        "store1",
        "store1:",
        ":/data",
        "store1:data",
        "Store1:/data",
        "store1:/data:/x",
        "store1:/a/../b",
    ]);
    refuses::<OptionName>(&[
        "",
        "group",
        "a b.c",
        "-a.b",
        "a..b",
        ".a",
        "A.b",
        "auth.allow",
        "auth.reject",
        "user.stor.cluster",
    ]);
    refuses::<OptionValue>(&["", " a", "a ", "--xml", "a\nb", "é"]);
}
