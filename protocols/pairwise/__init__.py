"""SecAgg and SecAgg+: sums under pairwise masks, with dropouts, against an active server.

Papers
    Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS), the version for
    active adversaries: the complete graph, here ``secagg``. Bell et al. 2020, "Secure Single-Server Aggregation with
    (Poly)Logarithmic Overhead" (CCS): a random k-ring, here ``secagg+``. One machine serves both; they differ only in
    who is whose neighbour.

Parties
    n clients with long-term Ed25519 keys in a roster that the deployment hands out, and one server that routes every
    message.

Rounds (client -> server, then server -> clients)
    1 ADVERTISE  u signs two fresh X25519 keys and a commitment to its self-mask seed b_u. The adverts that came are
                 U1; a Merkle root over them, sorted by client (provably, so nobody is in it twice), is the identity
                 of the cohort, and with the plan it seeds the graph. Each client gets its neighbours' adverts.
    2 SHARE      u deals t-of-k shares of its mask key and of b_u, each under a pad that u and its holder share, with
                 commitments and a proof that all of them are consistent (``protocols.rounds.dealing``).
    3 COMPLAIN   u signs which boxes do not hold what their commitments and proof say. Who is silent is left out.
    4 DEFEND     who is complained about shows the keys of those boxes, if they are the very ones that it made. Who does
                 not is left out. U2 are those who stay: the server tells each client whose shares to keep.
    5 UPLOAD     y_u = x_u + PRG(b_u) + sum_{u<v} PRG(s_uv) - sum_{u>v} PRG(s_uv) over the neighbours v in U2, of
                 whom u must hold t shares, with a signature on that list and the hash of y_u. Who did is U3.
    6 CONSISTENCY u signs the set U3, once, if masking was mutual: u was to keep the shares of each neighbour in U3,
                 which has u on the list that it signed in UPLOAD. Signers are U4.
    7 REVEAL     against t such signatures by its own neighbours, and on the ring those of a quorum of witnesses, u
                 reveals its share of b_v for each neighbour v in U3, of the mask key for each in U2 \\ U3, never both.
                 The server compares each share with its commitment, rebuilds masks and takes them off the sum.

    With noise in the plan x_u carries u's share of it. Its removable excess (``dp.noise``) depends on who is missing,
    so its seed goes along in REVEAL, against the same signatures. The ledger is charged with the worst case before
    anything is said (a client's own: before UPLOAD leaves) and with what happened between CONSISTENCY and REVEAL.

Threat model
    Privacy of honest clients against a server that lies to everybody together with up to a fraction gamma of clients;
    parameters in ``secagg.params``. With an honest server, and no more silent and lying clients together than the
    planned dropout, the round ends with the sum over the others: liars are named and left out. Two things remain to
    them: to upload any vector, and to deal another secret than the advertised one, which loses the round and names its
    dealer. The transport need not be secret; it must tell the server who speaks, because messages 2, 4 and 7 carry no
    signature, nor does 3 without complaints (a forger can make a client drop out and be named, nothing more).

What the server learns
    The sum over U3, who took part in each phase, nothing else, if at least t of each client's neighbours stay.

Cost
    Client: 3k key agreements, about 2k + t + q signatures to verify, k + 1 mask expansions. Server: n expansions, and k
    more for each client that drops between COMPLAIN and UPLOAD. Up: the vector at exactly ring width, and some 170
    bytes a neighbour.

Deviations from the papers
    - The graph comes from a hash of plan and cohort, not from the clients' own choices as in Bell et al.'s active
      variant: every client checks that it was given the neighbours that the hash demands. Corrupt clients can grind
      the hash, so 80 bits are added to the security parameter.
    - Signatures count from a client's own neighbours (t of k), and up to 4096 clients ``min_contributors`` in all, the
      strangers among them with a proof that they are in U1.
    - On the ring q of w witnesses, drawn by hash from the whole cohort, must sign as well: neighbourhoods alone would
      let a server tell two parts of the ring two sets (docs/protocol.md; numbers in ``secagg.params``).
    - Verdicts may differ from client to client here, where the papers' server delivers U2 to all alike. So the upload
      signs whom it was masked with, and who signs U3 has checked that masking was mutual around it. Without that a
      server gets the sum over a part of the cohort.
    - b_u is committed to in the advert, so that a dealer of another seed is noticed.
    - Dealing is verified before anybody masks, and a share as it is revealed: phases 3 and 4 are not in the papers.
"""
