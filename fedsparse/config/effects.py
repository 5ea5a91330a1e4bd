def has_effect(key, config):
    return True


def without_effect(config, keys):
    return []
