"""Sums under pairwise masks of everybody who advertised, or none: no dropouts, no shares.

Paper
    The first protocol of Bonawitz et al. 2017, section 4.0.1 ("masking with one-time pads"), with signed keys.

Parties
    n clients with Ed25519 keys in a roster that the deployment hands out, and one server that routes every message.

Rounds (client -> server, then server -> clients)
    1 ADVERTISE  u signs a fresh X25519 key together with the plan. The adverts that came are the cohort; each client
                 gets all of them, and their hash is the cohort's root.
    2 UPLOAD     y_u = x_u + sum_{u<v} PRG(s_uv) - sum_{u>v} PRG(s_uv) over all others in the cohort, where s_uv depends
                 on the plan and the root. If all have come, the server adds them up; otherwise the round is over.

Threat model
    Privacy of honest clients against a server that lies, together with any number of clients: it learns the sum over
    the honest ones in one cohort, since masks of two cohorts never cancel. So ``min_contributors`` must be more than
    the corrupt clients that are feared, by two at least; who sets a policy sees to that. One silent client ends the
    round, and any client can upload what it likes.

What the server learns
    The sum over the cohort, and who was in it.

Cost
    Client: n key agreements, n signatures to verify, n masks. Server: n additions, nothing to take off.
"""
