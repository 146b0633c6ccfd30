//! Replies and effects of the group geo.

use crate::testing::{TestKeyspace, check, check_on};

const ADD: &str = "GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania";
const SYNTAX: &str = "-ERR syntax error\r\n";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn places_are_scores() {
    check(&[
        (ADD, ":2\r\n"),
        ("ZSCORE g Palermo", "$16\r\n3479099956230698\r\n"),
        (
            "GEOPOS g Palermo none",
            "*2\r\n*2\r\n$20\r\n13.36138933897018433\r\n$20\r\n38.11555639549629859\r\n*-1\r\n",
        ),
        ("GEOHASH g Palermo none Catania", "*3\r\n$11\r\nsqc8b49rny0\r\n$-1\r\n$11\r\nsqdtr74hyu0\r\n"),
        ("GEODIST g Palermo Catania", "$11\r\n166274.1516\r\n"),
        ("GEODIST g Palermo Catania km", "$8\r\n166.2742\r\n"),
        ("GEODIST g Palermo Palermo", "$6\r\n0.0000\r\n"),
        ("GEODIST g Palermo none", "$-1\r\n"),
        ("GEODIST g a b x", "-ERR unsupported unit provided. please use M, KM, FT, MI\r\n"),
        ("GEODIST g a b m x", SYNTAX),
        ("GEOADD g NX XX 1 1 a", SYNTAX),
        ("GEOADD g 1 1 a 2", SYNTAX),
        ("GEOADD g 1 x a", "-ERR value is not a valid float\r\n"),
        ("GEOADD g 181 1 a", "-ERR invalid longitude,latitude pair 181.000000,1.000000\r\n"),
        ("GEOADD g NX CH 1 1 Palermo", ":0\r\n"),
        ("SET s x", "+OK\r\n"),
        ("GEOADD s 1 1 a", WRONG_TYPE),
        ("GEOPOS s a", WRONG_TYPE),
        ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m", WRONG_TYPE),
    ]);
}

#[test]
fn searches() {
    check(&[
        (ADD, ":2\r\n"),
        (
            "GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST WITHHASH",
            "*2\r\n*3\r\n$7\r\nCatania\r\n$7\r\n56.4413\r\n:3479447370796909\r\n*3\r\n$7\r\nPalermo\r\n$8\r\n190.4424\r\n:3479099956230698\r\n",
        ),
        ("GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 400 km COUNT 1", "*1\r\n$7\r\nCatania\r\n"),
        ("GEOSEARCH g FROMMEMBER Palermo BYBOX 1 1 m DESC", "*1\r\n$7\r\nPalermo\r\n"),
        (
            "GEOSEARCH g BYPOLYGON 3 12 37 16 37 14 39.5 ASC WITHDIST",
            "*2\r\n*2\r\n$7\r\nPalermo\r\n$10\r\n63579.4759\r\n*2\r\n$7\r\nCatania\r\n$11\r\n102999.9414\r\n",
        ),
        ("GEORADIUS g 15 37 100 km", "*1\r\n$7\r\nCatania\r\n"),
        ("GEORADIUSBYMEMBER_RO g Catania 200 km DESC COUNT 1", "*1\r\n$7\r\nPalermo\r\n"),
        ("GEORADIUS_RO g 15 37 100 km STORE d", SYNTAX),
        ("GEOSEARCH none FROMMEMBER a BYRADIUS 1 m", "*0\r\n"),
        ("GEOSEARCH g FROMMEMBER a BYRADIUS 1 m", "-ERR member a does not exist\r\n"),
        ("GEOSEARCH g FROMLONLAT 1 1 BYRADIUS x m", "-ERR need numeric radius\r\n"),
        ("GEOSEARCH g FROMLONLAT 1 1 BYRADIUS -1 m", "-ERR radius cannot be negative\r\n"),
        ("GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m COUNT 0", "-ERR COUNT must be > 0\r\n"),
        ("GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m ANY", "-ERR the ANY argument requires COUNT argument\r\n"),
        ("GEOSEARCH g FROMLONLAT 1 1 FROMMEMBER Palermo BYRADIUS 1 m", SYNTAX),
    ]);
}

#[test]
fn effects_are_results() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            (ADD, ":2\r\n"),
            ("GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 100 km", ":1\r\n"),
            ("GEORADIUS g 15 37 100 km STOREDIST d", ":1\r\n"),
            ("GEORADIUS g 0 0 100 m STORE d", ":0\r\n"),
            ("EXISTS d", ":0\r\n"),
        ],
    );
    let effects = keyspace.effects();
    assert_eq!(effects[0], "ZADD g 3479099956230698 Palermo 3479447370796909 Catania");
    assert_eq!(effects[1..3], ["DEL d", "ZADD d 3479447370796909 Catania"]);
    assert!(effects[4].starts_with("ZADD d 56.4412"), "{effects:?}");
    assert_eq!(effects[5..], ["DEL d"]);
}
