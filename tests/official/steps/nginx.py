def run(direct_only=False):
    return 0, 0
