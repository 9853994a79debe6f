"""One-shot sums under key-homomorphic masks: a client speaks once, a committee opens the sum, dropouts cost nothing.

Papers
    Karthikeyan and Polychroniadou 2024, "OPA: One-shot Private Aggregation with Single Client Interaction and its
    Applications to Federated Learning" (CRYPTO 2025): a mask that is linear in its key, packed shares of the key for
    a committee. Bell-Clark et al. 2024, "Willow: Secure Aggregation with One-Shot Clients" (CRYPTO 2025): what a
    committee may be asked. Bell et al. 2022, "ACORN: Input Validation for Secure Aggregation" (USENIX Security 2023):
    the ring-LWE mask a s + e with several values in a coefficient. Kim, Lee, Seo and Song 2023 (CRYPTO),
    hint-RLWE: what the sums of secrets and errors give away.

Parties
    n clients with long-term Ed25519 keys in a roster, some of whom are members of a committee, and one server that
    routes every message. Up to 128 clients all are; more draw lots with a beacon (``Policy.beacon``) that comes
    from the deployment or from a public source, after the roster, and that the server cannot choose.

Rounds (client -> server, then server -> clients)
    1 JOIN       a member signs a fresh X25519 key, with the plan; the others ask for those.
    2 UPLOAD     u draws a short secret s_u and short errors e_u and sends c_u = x_u + a s_u + 2^(vw) e_u, where a is
                 a hash of the plan; and packed Shamir shares of s_u, sealed to each member. It signs both. The server
                 adds c_u and forgets it. From here on nobody needs u, unless it is a member.
    3 CONSISTENCY a member verifies all signatures, opens its shares, adds them, and signs the set U of those clients
                 and a hash of their uploads' headers, once. If shares do not open it says whose, and has no part in
                 the sum.
    4 REVEAL     against signatures by Q members on the same a member sends its share of the sum of their secrets. Q of
                 these give S = sum s_u; sum c_u - a S = sum x_u + 2^(vw) sum e_u, and the sum is read from its low
                 bits.

    With noise in the plan x_u carries u's share of it. A survivor that is still there gets the signatures, too: it
    sends the seed of its excess (``dp.noise``), and its own ledger learns what happened. Of those who left, excess
    stays in the sum, and their ledgers keep the worst case.

Threat model
    Privacy of honest clients against a server that lies to everybody together with up to a fraction gamma of clients.
    At most f members are corrupt, but for 2^-security (``parameters``). f shares of a secret say nothing. Q is more
    than (m + f) / 2, so two sets cannot both have Q signatures: any two quorums share an honest member, who signs once.
    (The headers are signed, too: of a client that was cloned and made to upload twice, members would add up different
    shares.) Who is in the set has signed its upload, so min_contributors of the roster really are, at every n, and at
    least f + 2.
    Given the sums of at least two honest clients' secrets and errors (sigma = 6.4) each of them
    hides as well as RLWE with sigma0 >= 3.2 does (``secagg.crypto.lattice``).
    Correctness only when clients follow the protocol. One liar can end a round, and clients have reserved budget as
    they uploaded, before anybody has looked at anything:
    - Whose shares do not open costs the round the members concerned, and beyond m - Q of them the round. More than f
      complaints name it alone, fewer together with those who complain. That is before the server commits budget; but
      clients, who are not told, keep the worst case that they reserved.
    - Shares that open and are wrong, or do not fit the vector, cannot be told from members' lies. Beyond what can be
      done without they end the round after budgets are committed, and everybody in it is named: the liar can do it
      again. (A proof of consistency as in ``secagg.crypto.dealing`` would find the former, and not the latter.)
    - Members who complain falsely are worth as much as silent ones; they exclude nobody. Their wrong shares are found,
      up to half of those beyond Q. Of very few values a lie can be chosen that decodes.

What the server learns
    The sum over U, who joined, uploaded, signed and answered, the sums of secrets and errors, nothing else.

Cost
    Client: m key agreements and boxes, one product of polynomials for each block; up: 1.1 to 1.2 times the vector at
    the width of its sum, and 4 N / (2 l) bytes a member. Member: n signatures and n boxes. Server: one addition a
    client and one product in the end, whoever drops out.

Deviations from the papers
    - Shares in GF(2^31 - 1), two or three coefficients in an element: no second field, and fewer bytes than
      coefficients in a field of 17 bits.
    - Members sign the set (Willow has a verifier, OPA trusts the server with one set): without that an active server
      gets two sums from two halves of the committee.
    - Whose shares do not open is not left out of the sum, since the server has added its vector and kept none; the
      members concerned are. (To leave clients out, n vectors would have to be kept until the members have looked.)
    - Nothing shows that uploads are short or that shares fit them (ACORN's and Willow's proofs).
"""
