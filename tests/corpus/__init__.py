"""Holds bad and odd inputs by kind, each with the exit code that it ends with and the words that its message must hold.

One module holds one kind of input: config, tables, folders, images, weights, objects, urls, environment. Each makes its inputs by code, so that no
binary file is kept, and lists them as `CASES`. `test_corpus.py` tries all of them in this process.
"""
