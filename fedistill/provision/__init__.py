"""Keys that each side makes for itself, and the files that introduce the sides to each other.

    site:         site init          -> request.json   (public keys, signed by themselves)
    coordinator:  provision sign     -> SITE.kit.zip   (server, authority, roster; signed)
    site:         site join          -> site.toml, ca.crt, pins.toml

No private key is ever in a file that travels. Both files may travel in the open: what makes them
trustworthy is a fingerprint that people compare by another way, such as the telephone.
"""
