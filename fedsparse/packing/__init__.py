"""A trained model in one small file: pruned, its weights clustered, and what is left coded by its entropy.

Han, Mao and Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization and Huffman
coding", ICLR 2016.
"""
