# python3 -c ..: shows what the kernel's target (LIO) offers now and what it is to offer after a boot, as JSON and without
# secrets: in place of each initiator's there are the names of stor's stamps that fit it. Never writes, and loads no module.
import glob, json, os, sys, uuid

def stamps():
    """stor's stamps: a salt, and the name-based UUID (version 5) of the value in that name space."""
    for path in glob.glob('/var/lib/stor/*.target-stamp'):
        try:
            with open(path) as file:
                salt, digest = map(uuid.UUID, file.read().split())
            yield path, salt, digest
        except (OSError, ValueError):
            pass  # gone meanwhile, or torn: it fits nothing

noted = list(stamps())

def without_secrets(config):
    for target in config.get('targets', []):
        for tpg in target.get('tpgs', []):
            for acl in tpg.get('node_acls', []):
                secret = acl.get('chap_password') or ''
                acl['stamps'] = sorted(path for path, salt, digest in noted if uuid.uuid5(salt, secret) == digest)
            for holder in [tpg] + tpg.get('node_acls', []):
                for key in [key for key in holder if 'password' in key]:
                    del holder[key]
    return {key: config.get(key, []) for key in ('storage_objects', 'targets')}

try:
    from rtslib_fb import FabricModule
    from rtslib_fb.root import default_save_file
    from rtslib_fb.tcm import StorageObject
    from rtslib_fb.utils import RTSLibError
except ImportError:
    print('{}')
    sys.exit(0)

def objects():
    for item in StorageObject.all():
        # One that a killed run left half made has no values to show.
        yield item.dump() if item.is_configured() else {'name': item.name, 'plugin': item.plugin}

def shown(target):
    try:
        config = target.dump()
    except RTSLibError:
        return {'wwn': target.wwn, 'tpgs': []}  # a killed run left it half made
    for tpg, seen in zip(target.tpgs, config['tpgs']):
        sessions = {acl.node_wwn for acl in tpg.node_acls if acl.session}
        for acl in seen['node_acls']:
            acl['session'] = acl['node_wwn'] in sessions
    return config

now = {}
if os.path.isdir('/sys/kernel/config/target/core'):
    now['storage_objects'] = list(objects())
if os.path.isdir('/sys/kernel/config/target/iscsi'):
    now['targets'] = [shown(target) for target in FabricModule('iscsi').targets]
saved = {}
if os.path.exists(default_save_file):
    with open(default_save_file) as file:
        saved = json.load(file)
json.dump({'now': without_secrets(now), 'saved': without_secrets(saved)}, sys.stdout)
