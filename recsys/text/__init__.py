"""Items by what is said of them: an encoder makes a vector of each item's text.

    directory   a text encoder as it lies on a disk: what is read of it, and what is refused
    tokenizing  how a text becomes numbers, by parts that are known
    encoder     the encoder itself: texts in, vectors out (extra [large])
    vectors     the vectors of a table of items, computed once
    coordinates vectors in few numbers, on one scale
    layers      an encoder in two parts, the last of which is tuned
    adapters    how it is tuned: small changes of its maps, which are all that travels

``recsys.text.vectors.item_vectors`` is the door.
"""
