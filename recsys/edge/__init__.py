"""A trained model on a device: a folder that ONNX Runtime or LiteRT recommends from, without torch or a server.

graphs      how an ONNX graph is written, and the numbers in it rounded to 8 bits
forms       each model as such a graph, from a user's history to scores
lite        a graph as a file of LiteRT
folder      the files of an exported model, their manifest, and what of a stranger's folder is believed
exporting   from the directory of a run to that folder
on_device   the scores, asked on the device of ONNX Runtime
on_lite     the same, of LiteRT
"""
