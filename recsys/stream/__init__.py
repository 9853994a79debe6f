"""Training on events as they happen: from a source to the sums in which they are, each in one at most as new.

    sources    where events come from: a file that others append to (``tail``), Kafka (``kafka``), tables that are read
               in batches (``dataset``)
    events     what an event is, read strictly: strangers write it
    intake     from a source into the journal: what is refused, and counted
    journal    one SQLite file: how far each part of the source was read, the events that wait or are replayed, up to a
               cap for each user, and in which sum each of them is
    sums       an aggregator with which the journal moves

What holds, whatever is killed and whenever (``tests/recsys/stream``):

    once      An event is new in one sum that is out, at most. After that it is replayed with later events of its user,
              for so many seconds of event time (R), and then it is gone.
    not lost  An event that was read is new in a sum that is out, or waits, or was refused or has grown too old, and
              then it is counted by why. A source is told that it may forget an event only when one of these is so and
              it does not wait.
    one move  How far a source was read, the events themselves, the cap of their users, and in which sum they are, move
              together, in one transaction.
    said once What a client says of a sum is computed from the events that the journal gave to that sum before anything
              was computed. It is kept, sealed, by whoever says it (``recsys.pending_sum``, ``protocols.journal``), so
              that a restart says the same again, and never trains anew on those events once anything has left.

Rounds are at moments that are fixed in advance, one every so many seconds (T), whether anybody did anything or not. Who
did nothing adds zeros. What is new for a sum is what was read by its moment.
"""
