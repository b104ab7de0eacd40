"""SQL expressions for every built-in base type, extremes included: what the value tests store and read back."""

import random
import struct

_random = random.Random(20260101)


def _floats(code, count):
    size = struct.calcsize(code)
    numbers = [struct.unpack(code, _random.randbytes(size))[0] for _ in range(count)]
    return [repr(number).replace("inf", "Infinity").replace("nan", "NaN") for number in numbers]


def _addresses(count):
    """IPv6 addresses with many zero words, which is where their spelling is peculiar."""
    words = ["0", "0", "0", "1", "ffff", "a0", "1234"]
    return [":".join(_random.choice(words) for _ in range(8)) for _ in range(count)]


TEXTS = ["", "a", "plain", "NULL", "null", " lead", "trail ", "tab\tnew\nline\r", "'", '"', "\\", "\\\\", "{a,b}",
         "a,b", "(x)", "[1]", "é", "naïve café ÿ", "x" * 3000, "~tilde", "100%", "\x01\x7f", "\xa0nbsp"]  # fmt: skip
WIDE_TEXTS = [
    "日本語",
    "😀",
    "Ω≈ç√",
    "mixed é日",
    "я",
    "plain",
    "tilde~",
    "back\\slash",
    "¥",
    "‾",
    "€",
    "〜",
    "\uff0d",
    "\x80",
]
"""Beyond LATIN1, and what encodings disagree about."""
SPECIAL_FLOATS = ["0", "-0", "NaN", "Infinity", "-Infinity", "1", "-1", "0.1", "100", "1e-4", "1e-5", "123456",
                  "1234567", "1e14", "1e15", "1e16", "123456789012345", "0.0001", "0.00012345", "1.5e-7"]  # fmt: skip
DOUBLES = [*SPECIAL_FLOATS, "1e23", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "9007199254740993",
           "0.30000000000000004", "123456789.123456789", *_floats("!d", 200)]  # fmt: skip
SINGLES = [*SPECIAL_FLOATS, "1e-45", "1.17549435e-38", "3.4028235e38", "16777216", "16777217", "8.5899346e9",
           *(repr(2.0**power) for power in range(-149, 128)),
           *_floats("!f", 200)]  # fmt: skip
DATES = ["2024-02-29", "2000-01-01", "1999-12-31", "0001-01-01", "0001-12-31 BC", "0044-03-15 BC", "4713-01-01 BC",
         "9999-12-31", "10000-01-01", "294276-12-31", "0099-05-06", "1582-10-10", "infinity", "-infinity"]  # fmt: skip
CLOCKS = ["00:00:00", "23:59:59.999999", "12:34:56.7", "00:00:00.000001", "01:02:03.120000"]
TIMESTAMPS = [f"{day.removesuffix(' BC')} {clock}{' BC' if day.endswith('BC') else ''}"
              for day in DATES if "inf" not in day for clock in CLOCKS] + ["infinity", "-infinity"]  # fmt: skip
ZONED = [*TIMESTAMPS[5:], "2024-07-01 12:00:00+05:30", "1890-01-01 00:00:00", "2024-03-10 02:30:00 America/New_York",
         "2001-01-01 00:00:00-12:34:56"]  # fmt: skip
INTERVALS = ["0", "1 second", "-1 second", "1 day", "-1 day", "1 day -1 second", "-1 day 1 second", "1 mon", "-1 mon",
             "1 year 1 mon", "-1 year -1 mon", "14 mons -3 days +04:05:06.789", "-14 mons 3 days -04:05:06.000789",
             "-13 mons", "1 year -1 day 00:00:01", "178000000 years", "-178000000 years", "2147483647 days",
             "-2147483648 days", "2562047788:00:54.775807", "-2562047788:00:54.775807", "1 day 25:00:00", "100:00:00",
             "2 days", "12 mons", "24 mons 2 days 10:00:00", "00:00:00.5", "-00:00:00.000001"]  # fmt: skip
NUMERICS = ["0", "0.0", "0.000", "1", "-1", "10000", "9999", "0.0001", "0.00001",
            "123456789012345678901234567890.123456",
            "-0.5", "1e100", "1e-100", "1.10", "100.00", "99999999.99999999", "NaN", "10000.0001", "0.00010000",
            "0.12345678901234567890", "12345.6789e-20", "1e4", "1e3", "1e131000"]  # fmt: skip
JSONS = ["{}", "[]", "null", "true", "1.50", '"é\\u00e9"', ' { "a" : [1, 2.0, null],  "a": {"b": "\\n"} } ', '"~\\\\"',
         "[1e400]", "-0"]  # fmt: skip

SAMPLES: dict[str, list[str]] = {
    "bool": ["t", "f"],
    "bytea": ["", "\\x", "\\x00ff5c", "plain", "back\\\\slash", "\\\\x41", "\\x5c78", "\\000\\001\\377", "'", "é"],
    '"char"': ["", "a", "'", "\\", " ", "~", "\\377", "\\200", "\\001"],
    "name": ["a", "MiXed", "with space", "é", ""],
    "int8": ["0", "-9223372036854775808", "9223372036854775807", "42"],
    "int2": ["0", "-32768", "32767", "42"],
    "int2vector": ["", "1", "1 2 3", "-32768 32767 0"],
    "int4": ["0", "-2147483648", "2147483647", "42"],
    "text": TEXTS,
    "oid": ["0", "4294967295", "42"],
    "tid": ["(0,0)", "(4294967295,65535)", "(1,2)"],
    "xid": ["0", "4294967295"],
    "cid": ["0", "4294967295"],
    "oidvector": ["", "1", "0 4294967295"],
    "json": JSONS,
    "xml": ["<a/>", "", "text", '<?xml version="1.0"?><a>é</a>', '<?xml version="1.0" standalone="yes"?><a/>',
            '<?xml version="1.1"?><a/>', '<?xml version="1.0" encoding="UTF-8"?><r>x</r>'],
    "point": ["(0,0)", "(-1.5,1e300)", "(NaN,Infinity)", "(0.1,0.30000000000000004)"],
    "lseg": ["[(0,0),(1,1)]", "[(0.1,-2e20),(1e-7,-0)]"],
    "path": ["((0,0),(1,1))", "[(0,0),(1.5,1e16),(2,2)]", "[(1,1)]"],
    "box": ["(0,0),(1,1)", "(0.1,0.2),(-5,1e100)"],
    "polygon": ["((0,0),(1,1),(2,0.1))", "((1e-5,2))"],
    "line": ["{1,-1,0}", "{0.1,2,1e25}"],
    "circle": ["<(0,0),1>", "<(0.1,-2),3.5>"],
    "cidr": ["10.0.0.0/8", "192.168.1.5/32", "0.0.0.0/0", "::/0", "2001:db8::/32", "::1/128", "::ffff:1.2.3.0/120"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "255.255.255.255", "0.0.0.0/0", "::", "::1", "::1/64", "::2", "::1.2.3.4",
             "::ffff:1.2.3.4", "::ffff:0:1.2.3.4", "1::", "1:0:0:2::", "1:0:0:2:0:0:3:4", "fe80::1/10",
             "::1:2:3:4:5:6:7", "1:2:3:4:5:6:7::", *_addresses(200)],
    "macaddr": ["08:00:2b:01:02:03", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"],
    "macaddr8": ["08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03"],
    "float4": SINGLES,
    "float8": DOUBLES,
    "money": ["0", "-1234.56", "92233720368547758.07"],
    "numeric": NUMERICS,
    "bpchar": TEXTS[1:],
    "varchar": TEXTS,
    "refcursor": ["c", "é", ""],
    "bit(11)": ["10110011101", "00000000000", "11111111111"],
    "varbit": ["", "1", "0", "10101010", "101010101", "0" * 100 + "1"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"],
    "date": [*DATES, "5874897-12-31"],
    "time": [*CLOCKS, "24:00:00"],
    "timestamp": [*TIMESTAMPS, "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC"],
    "timestamptz": ZONED,
    "interval": INTERVALS,
    "timetz": ["00:00:00+00", "23:59:59.999999-12", "12:00:00+05:30", "24:00:00-15:59:59", "01:02:03.5+15:59"],
    "txid_snapshot": ["10:20:", "10:20:10,14,15"],
    "pg_snapshot": ["10:20:", "10:20:10,14,15", "1:9223372036854775807:5"],
    "pg_lsn": ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "1/A"],
    "xid8": ["0", "18446744073709551615"],
    "tsvector": ["", "a", "a:1 b:2A,3B,4C,5D", "'it''s':1 'back\\\\slash' 'sp ace':3", "é:16383A", "fat cat sat"],
    "tsquery": ["", "a", "!a", "a & b | c", "a & (b | c)", "!(a & b)", "!!a", "a <-> b <-> c", "a <-> (b <-> c)",
                "a <3> b", "(a | b) <-> c", "a:AB* & 'it''s':*", "!a <-> b", "!(a <-> b) | c & !d", "a:D", "é & f",
                "(a <-> b) <2> (c <-> d)", "a | b | (c | d)", "(a & b) & (c & d)", "a <0> b"],
    "jsonb": JSONS[:-2],
    "jsonpath": ["$", "$.a[*] ? (@.b > 1.50)", 'strict $."é"', "$.a.b.c", "lax $[0 to last]"],
}  # fmt: skip
"""Text input of values by type."""

RANGES: dict[str, list[str]] = {
    "int4range": ["empty", "[1,5)", "(,)", "[1,)", "(,5]", "[-2147483648,2147483647)"],
    "int8range": ["empty", "[1,5)", "(,)"],
    "numrange": ["empty", "[1.50,2.0]", "(1e-5,)", "[NaN,NaN]"],
    "daterange": ["empty", "[2024-01-01,2024-02-01)", "(,infinity)", "[0044-03-15 BC,10000-01-01)"],
    "tsrange": ["empty", "[2024-01-01,2024-02-01 01:02:03.5)", "[infinity,]"],
    "tstzrange": ["empty", "[2024-01-01 00:00+00,2024-07-01 12:00:00.123+05:30)", "(,2024-01-01 00:00+01]",
                  "[-infinity,)"],
}  # fmt: skip

ARRAYS: dict[str, list[str]] = {
    "int4[]": ["{}", "{1,2,NULL}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[2:2][-1:0]={{1,2}}", "{{{1}},{{2}}}"],
    "text[]": ["{}", '{"",NULL,"NULL","null",a,"a b","a,b","{x}","q\\"q","b\\\\s","é"}', '{{a,b},{" c ","d\t"}}'],
    "bytea[]": ['{}', '{"\\\\x00ff",NULL,"\\\\x5c22"}', '{{"\\\\x"},{"\\\\x41"}}'],
    '"char"[]': ['{a,"",NULL," ","\\\\","\\""}'],
    "float8[]": ["{}", "{0.1,NULL,-0,NaN,1e23,0.30000000000000004}"],
    "float4[]": ["{0.1,NULL,1e10}"],
    "numeric[]": ["{1.50,NULL,NaN}"],
    "bool[]": ["{t,f,NULL}"],
    "uuid[]": ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"],
    "date[]": ["{2024-01-01,NULL,infinity,0044-03-15 BC}"],
    "timestamp[]": ['{"2024-01-01 00:00:00",NULL,infinity}'],
    "timestamptz[]": ['{"2024-01-01 00:00:00+00",NULL,infinity,"2024-07-01 12:00:00.5+05:30"}', "[3:3]={2024-01-01}"],
    "interval[]": ['{"1 day",NULL,"1 mon -1 day","01:00:00"}'],
    "json[]": ['{"{\\"a\\": [1, 2]}",NULL,"null"}'],
    "jsonb[]": ['{"{\\"a\\": [1, 2]}",NULL,"null"}'],
    "box[]": ["{(1,1),(0,0);(2,2),(0.1,0)}"],
    "point[]": ['{"(0.1,2)",NULL}'],
    "int2vector[]": ['{"1 2","3"}'],
    "inet[]": ["{10.0.0.1/8,::1}"],
    "tsvector[]": ["{\"'a':1 'b'\",NULL}"],
    "bit(3)[]": ["{101,NULL}"],
}  # fmt: skip

MULTIRANGES: dict[str, list[str]] = {
    "int4multirange": ["{}", "{[1,5)}", "{[1,5),[7,9)}", "{(,)}"],
    "int8multirange": ["{[1,5),[7,9)}"],
    "nummultirange": ["{[1.5,2.50],(3,)}"],
    "datemultirange": ["{[2024-01-01,2024-02-01),[2025-01-01,)}"],
    "tsmultirange": ["{[2024-01-01,2024-02-01 01:02:03.5),[2025-01-01,)}"],
    "tstzmultirange": ["{}", "{[2024-01-01 00:00+00,2024-02-01 01:02:03.5+00),[2025-01-01 00:00+00,)}", "{(,)}"],
}  # fmt: skip
