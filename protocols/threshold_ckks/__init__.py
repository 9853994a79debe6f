"""Threshold CKKS: homomorphic sums under a key of which every client holds a part, and nobody more.

Papers
    Asharov, Jain, Lopez-Alt, Tromer, Vaikuntanathan and Wichs 2012, "Multiparty Computation with Low Communication,
    Computation and Interaction via Threshold FHE" (EUROCRYPT), and Mouchet, Troncoso-Pastoriza, Bossuat and Hubaux
    2021, "Multiparty Homomorphic Encryption from Ring-Learning-with-Errors" (PETS): a joint key that is a sum of parts,
    partial decryptions that are flooded. Boneh et al. 2018, "Threshold Cryptosystems from Threshold Fully Homomorphic
    Encryption" (CRYPTO): parts that are shared, for when their owners are gone. Cheon, Kim, Kim and Song 2017
    (ASIACRYPT): the scheme, with values in coefficients and no multiplication. Li and Micciancio 2021, "On the
    Security of Homomorphic Encryption on Approximate Numbers" (EUROCRYPT): why decryptions are flooded.

Parties
    n <= 1024 clients with long-term Ed25519 keys in a roster, and one server that routes every message and adds.

Rounds (client -> server, then server -> clients); a is public, drawn from the plan
    1 ADVERTISE  u signs a fresh X25519 key and a commitment to b_u = -a s_u + T e_u; s_u and e_u come from a seed z_u.
                 The adverts that came are U1, a Merkle root over them is its identity. Everybody gets all of them.
    2 KEY        u shows b_u and deals t-of-n shares of z_u, with a proof that they are consistent
                 (``secagg.crypto.dealing``).
    3 COMPLAIN   u signs what is wrong with what it was dealt, mostly nothing (``protocols.rounds.dealing``).
    4 DEFEND     u opens what it dealt to those who complain about it. U2 are those who dealt, looked at what they were
                 dealt, and answered all complaints about them with what fits. Only now b = sum b_u over U2 is the joint
                 key. Who is left out has no part in it, and nobody keeps its shares.
    5 UPLOAD     c0 = b v + T e0 + x and c1 = a v + T e1, signed with the digest of U2 and b. Who did is U3.
    6 CONSISTENCY u signs the set U3, once. Signers are U4.
    7 DECRYPT    against max(t, min_contributors) such signatures u answers d_u = (sum c1) s_u + T f_u, flooded.
    8 MISSING    u signs the one set M of those in U2 who did not answer, if it leaves t that did.
    9 RECOVER    against t such signatures u reveals its shares of z_w for all w in M. One hash tells a wrong one. The
                 server rebuilds z_w, compares with the commitment, and adds (sum c1) s_w. Then sum c0 + sum d_u + ... =
                 x + T (small) is decoded.

    The key lives for one round and decrypts once: the transition table and the journal see to that. So there is no
    count of decryptions to bound or to keep, and every part of the key, rebuilt or not, is retired with the round.

Threat model
    Honest but curious: the server together with fewer than t clients, where t is more than half of the honest ones and
    all the corrupt (``secagg.params.complete_threshold``). They learn the sum and nothing else, to within 2^-40
    (``sizes``). Clients alone learn nothing, not even the sum. Against an ACTIVE server this is not enough: it can hand
    out a joint key of its own, or have a malformed c1 "decrypted" that contains the parts of the key in the clear; the
    signatures, commitments and counts here stop accidents, outsiders and lying minorities of clients, not that. What
    would help is a proof with each upload that it is well formed (its place is in ``messages.Upload``), and each client
    checking all of them and adding up c1 itself. Lattice proofs of such relations have tens of kilobytes an equation
    (Lyubashevsky, Nguyen and Plancon 2022, CRYPTO), here one a block; the n halves c1 to be downloaded, 390 MB for 100
    clients and 10^6 coordinates, weigh more. Against such a server use ``secagg+``.

    Liars among the clients cost nobody a round or a budget where they deal badly, complain falsely, reveal wrong shares
    or fall silent, as long as they and the silent ones are within the planned dropout, and the liars fewer than t: they
    have no part in the key, or are done without, and are named by an honest server. Two lies are found only when
    budgets are committed. A dealer of another seed than the one behind its part of the key, to all or to corrupt
    holders, who then falls silent, is named, alone. A ciphertext or a partial decryption that is none makes a sum that
    does not decode, again and again, and nobody can tell whose it was: all who uploaded are named. (Which part of a sum
    is wrong, proofs would show, or every seed, which nobody is to have.)

What the server learns
    The sum over U3, who took part in each phase. Of each missing client its part of the key, which is worth nothing
    without the others'.

Cost
    Client: one encryption, one partial decryption, 2 n boxes. Up, at 16 bits, n = 100 and 10^6 coordinates: 7.9 bytes a
    coordinate for the ciphertext, 3.8 for the partial decryption; a part of the key once, 0.7 MB; shares and
    their proof, 68 n + 16 t bytes. Server: O(d n) additions, one product for all that is missing; it keeps the parts of
    the key until it knows whose are in it. Eight messages up, nine for whom complaints are about; a dropout costs those
    who stay a share each.

Deviations from the papers
    - Only missing clients' parts are rebuilt, for one signed (ciphertext, missing set) per round. Nobody's partial
      decryption is weighted with Lagrange coefficients: two of those for one ciphertext give away the part.
    - Parts of the key are committed to before any is shown: the last to speak would choose the sum. (Who gets itself
      left out after that has chosen between no more keys than who shows none after it has seen the others'.)
    - Shares are dealt verifiably, complained about and answered for (Atapoor, Baghery, Cozzo and Pedersen 2023, with
      hashes for commitments), where the papers trust each dealer.
    - Errors are multiplied, not messages (as in BGV): the values are exact integers, and nothing approximate is shown.
    - A new key each round instead of one for many: two messages more, and no counter that could be rolled back.
"""
