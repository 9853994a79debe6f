"""CKKS: sums of ciphertexts under one key that the clients share. The trust model that people know, done right.

Papers
    Cheon, Kim, Kim and Song 2017, "Homomorphic Encryption for Arithmetic of Approximate Numbers" (ASIACRYPT), through
    TenSEAL (Benaissa et al. 2021) on Microsoft SEAL. Li and Micciancio 2021, "On the Security of Homomorphic Encryption
    on Approximate Numbers" (EUROCRYPT): what is decrypted carries the key's noise, so nothing approximate leaves here;
    sums are rounded to the exact integers that went in.

Parties
    n <= 4096 clients with long-term Ed25519 keys in a roster, and one server that routes every message and adds.

Rounds (client -> server, then server -> clients)
    1 ADVERTISE  u signs a fresh X25519 key. The adverts that came are U1, under a Merkle root. Lots drawn from plan and
                 root fall on m makers, whose adverts all get.
    2 KEY        each maker makes a key pair and seals the secret half to the holders (``Recipient.SERVER``: the
                 makers; ``Recipient.CLIENTS``: everybody). One that came is used; makers beyond the first are there for
                 dropouts.
    3 UPLOAD     u encrypts its integers under that key, slot by slot, and signs key and ciphertexts. Who did is U3.
    4 CONSISTENCY u signs the set U3, once. Signers are U4.
    5 REVEAL     against min_contributors such signatures each holder decrypts the sum, rounds it, and sends it sealed
                 to a key of the server's (or, if only clients may know it, a keyed hash). The server compares: what
                 more than half say is the sum, and at least two must say it.

    A key pair lives for one round and its holders decrypt once: the transition table and the journal see to that. So
    one decryption is what every key is retired after, and there is no count to lose.

Threat model
    Honest but curious server and clients, none together. The server alone sees ciphertexts and learns the sum (with
    ``Recipient.CLIENTS`` not even that). But the server together with ONE holder opens every upload: that is what one
    shared key means, and why the makers are few. And a holder cannot tell a sum from one client's update: a server
    that lies sends it one upload and gets it decrypted. Signatures, the count of signers and the comparison of answers
    stop accidents, outsiders and lying minorities, not that. Against such a server use ``secagg+``. Nor does anything
    here stop one client that ends the round: a maker whose boxes do not open (non-holders keep what they reserved), or
    anybody whose ciphertexts parse and are none (budgets are committed). The server cannot name it.

What the server learns
    The sum over U3 (not with ``Recipient.CLIENTS``), who took part in each phase. Holders learn the sum, too.

Cost
    One key pair a maker, one encryption a client, one addition a client for the server; holders download and decrypt
    the sum. Up: 30.2 bytes a slot, 123 KB down and (makers) 190 KB up for the key. Dropouts cost nothing.

Deviations, and what TenSEAL sets
    - N = 4096 and primes of 54 and 55 bits: no multiplication is made, so no level is spent on one.
    - 2048 slots a ciphertext. Its 4096 coefficients could hold twice as much; TenSEAL encodes reals into slots only,
      and expands the half of a fresh ciphertext that a seed could stand for.
    - Randomness of keys and encryption is SEAL's own, from the operating system. A seeded run does not replay.
    - All native code runs in a child process (``ciphertexts``): bytes from others can crash that one, not the party.
"""
