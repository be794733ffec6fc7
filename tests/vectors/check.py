"""Checks the vectors in this folder: python3 check.py

Hash, Maglev and rendezvous tables of dsrlb, written from the specifications in the documentation of
`HashKey`, `Maglev` and `Rendezvous`, as plainly as can be. Needs Python 3.8 and nothing else.
"""

import ipaddress
import json
import pathlib

MASK = 2**64 - 1


def rotate(x, by):
    return (x << by | x >> (64 - by)) & MASK


def sip_round(a, b, c, d):
    a, c = (a + b) & MASK, (c + d) & MASK
    b, d = rotate(b, 13) ^ a, rotate(d, 16) ^ c
    a = rotate(a, 32)
    c, a = (c + b) & MASK, (a + d) & MASK
    b, d = rotate(b, 17) ^ c, rotate(d, 21) ^ a
    return a, b, rotate(c, 32), d


def siphash_1_3(key, message):
    k0, k1 = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        a, b, c, d = sip_round(a, b, c, d ^ word)
        a ^= word
    c ^= 0xFF
    for _ in range(3):
        a, b, c, d = sip_round(a, b, c, d)
    return a ^ b ^ c ^ d


def slot(x, size):
    return x * size >> 64


def flow_message(case):
    """The bytes of a flow that are hashed."""
    source, destination = (ipaddress.ip_address(case[end]).packed for end in ("source", "destination"))
    ports = b"".join(case[port].to_bytes(2, "big") for port in ("source-port", "destination-port"))
    protocol = bytes([case["protocol"]])
    return {
        "source-ip": source,
        "destination-ip": destination,
        "2-tuple": source + destination,
        "3-tuple": source + destination + protocol,
        "5-tuple": source + destination + ports + protocol,
    }[case["input"]]


def maglev(pool, size):
    """`pool`: (id, weight) in the order of the ids. Who has which slot, as a place in the pool."""
    total, largest = sum(weight for _, weight in pool), max(weight for _, weight in pool)
    quota = [size * weight // total for _, weight in pool]
    by_remainder = sorted(range(len(pool)), key=lambda i: (-(size * pool[i][1] % total), i))
    for i in by_remainder[: size - sum(quota)]:
        quota[i] += 1
    offset = [slot(siphash_1_3(b"dsrlb maglev off", name.encode()), size) for name, _ in pool]
    skip = [1 + slot(siphash_1_3(b"dsrlb maglev skp", name.encode()), size - 1) for name, _ in pool]
    table, credit, free = [None] * size, [0] * len(pool), size
    while free:
        for i, (_, weight) in enumerate(pool):
            credit[i] += weight
            if credit[i] < largest:
                continue
            credit[i] -= largest
            if quota[i]:
                while table[offset[i]] is not None:
                    offset[i] = (offset[i] + skip[i]) % size
                table[offset[i]] = i
                quota[i] -= 1
                free -= 1
    return table


KEY = b"dsrlb rendezvous"


def cost(x):
    """-log2(x / 2^64) in units of 2^-40."""
    x = max(x, 1)
    top = x.bit_length() - 1
    mantissa, fraction = x << (63 - top), 0
    for _ in range(40):
        mantissa, fraction = mantissa * mantissa >> 63, fraction * 2
        if mantissa >= 2**64:
            mantissa, fraction = mantissa // 2, fraction + 1
    return (64 - top) * 2**40 - fraction


def rendezvous(pool, seeds, row):
    """Who has slot `row`; `seeds` are the hashes of the ids."""
    best = None
    for i, (_, weight) in enumerate(pool):
        x = siphash_1_3(KEY, row.to_bytes(8, "little") + seeds[i])
        bid = (cost(x), weight, x, i)
        # The smallest cost / weight, then the largest x, then the first id.
        if best is None or (bid[0] * best[1], -x) < (best[0] * weight, -best[2]):
            best = bid
    return best[3]


def pool_of(case):
    """The backends of a case that take traffic, by the bytes of their ids; and all of them."""
    pool = case.get("backends")
    if pool is None:
        weights = case["weights"]
        pool = [(f"backend-{i}", weights[i % len(weights)]) for i in range(case["count"])]
    every = sorted((tuple(backend) for backend in pool), key=lambda backend: backend[0].encode())
    return [backend for backend in every if backend[1] > 0], every


def check_table(case, pool, every, owner, whole):
    """`owner` says who has a slot; the digest takes all slots and is checked if `whole`."""
    for at, name in enumerate(case.get("table", [])):
        assert pool[owner(at)][0] == name, (case, at)
    for at, name in case.get("slots", {}).items():
        assert pool[owner(int(at))][0] == name, (case, at)
    if whole and "digest" in case:
        place = {name: i for i, (name, _) in enumerate(every)}
        owners = [place[pool[owner(at)][0]] for at in range(case["size"])]
        message = b"".join(at.to_bytes(2, "little") for at in owners)
        assert f"{siphash_1_3(b'dsrlb default 01', message):016x}" == case["digest"], case


def vectors(name):
    text = pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")
    cases = json.loads(text)
    yield from cases
    print(f"{name}: {len(cases)} cases agree")


for case in vectors("hash.json"):
    x = siphash_1_3(bytes.fromhex(case["key"]), flow_message(case))
    assert f"{x:016x}" == case["hash"], case
    assert all(slot(x, size) == at for size, at in case["slots"]), case

for case in vectors("maglev.json"):
    pool, every = pool_of(case)
    table = maglev(pool, case["size"]) if pool else []
    assert len(table) == case["size"], case
    check_table(case, pool, every, table.__getitem__, whole=True)

for case in vectors("rendezvous.json"):
    pool, every = pool_of(case)
    assert case["size"] == (65536 if pool else 0), case
    seeds = [siphash_1_3(KEY, name.encode()).to_bytes(8, "little") for name, _ in pool]
    # Python is slow: all slots are only drawn for where two backends share them.
    check_table(case, pool, every, lambda row: rendezvous(pool, seeds, row), whole=len(pool) == 2)
