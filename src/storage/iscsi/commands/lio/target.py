# python3 -c .. offer JSON | forget IQN [OBJECT]...: has the kernel's target (LIO) offer one target as the JSON says, or withdraws
# it, and saves that for the next boot. The CHAP secret is the first line of standard input where the JSON names a user.
# Touches this target and these backing objects only, there and in the saved file; may run again after having been killed.
import json, os, sys
try:
    from rtslib_fb import BlockStorageObject, FabricModule, FileIOStorageObject, MappedLUN, NetworkPortal, LUN, NodeACL, RTSRoot, TPG, Target
    from rtslib_fb.root import default_save_file
    from rtslib_fb.utils import RTSLibError
except ImportError as error:
    # Without the library nothing is restored at boot; what the kernel still has would go unseen.
    gone = sys.argv[1] == 'forget' and not os.path.isdir('/sys/kernel/config/target/iscsi/' + sys.argv[2])
    sys.exit(0 if gone else str(error))

def fail(text):
    sys.exit(text)

def logged_in(target):
    return sorted(acl.node_wwn for tpg in target.tpgs for acl in tpg.node_acls if acl.session)

def save(root, iqn, names):
    """Merges what the kernel has of this target and these objects into the saved file, by rename."""
    saved = {}
    if os.path.exists(default_save_file):
        with open(default_save_file) as file:
            saved = json.load(file)
    now = {'storage_objects': [item.dump() for item in root.storage_objects if item.name in names],
           'targets': [target.dump() for target in FabricModule('iscsi').targets if target.wwn == iqn]}
    for key, name, mine in (('storage_objects', 'name', names), ('targets', 'wwn', {iqn})):
        others = [item for item in saved.get(key, []) if item.get(name) not in mine]
        saved[key] = others + now[key]
    saved.setdefault('fabric_modules', [])
    directory = os.path.dirname(default_save_file)
    os.makedirs(directory, exist_ok=True)
    partial = default_save_file + '.stor-partial'
    if os.path.exists(partial):
        os.remove(partial)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, 'w') as file:
        json.dump(saved, file, sort_keys=True, indent=2)
        file.write('\n')
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, default_save_file)
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

def reservations(root):
    """Where the kernel keeps persistent reservations. It does not make the directory, and refuses every registration without it."""
    return os.path.join(root.dbroot, 'pr')

def delete(root, item):
    """Takes away an object with the reservations of its LUN."""
    kept = os.path.join(reservations(root), 'aptpl_' + item.wwn)
    item.delete()
    if os.path.exists(kept):
        os.remove(kept)

def same(item, lun):
    """Whether an object is the one that is wanted, but for the size of a file."""
    return (item.is_configured() and item.plugin == lun['plugin'] and item.udev_path == lun['path'] and not item.write_back
            and item.wwn == lun['serial'])

def grow(item, lun):
    """The kernel takes another size of a file while it is in use; that of a device it asks for itself."""
    if item.size > lun['size']:
        fail('%s has %d bytes, and never gets fewer' % (lun['object'], item.size))
    with open(item.path + '/control', 'w') as control:
        control.write('fd_dev_size=%d' % lun['size'])
    if item.size != lun['size']:
        fail('the kernel kept the size of %s' % lun['object'])

def opened(lun):
    if lun['plugin'] == 'block':
        return BlockStorageObject(lun['object'], dev=lun['path'], wwn=lun['serial'])
    if not os.path.isfile(lun['path']):
        fail('%s is no file' % lun['path'])
    return FileIOStorageObject(lun['object'], dev=lun['path'], size=lun['size'], wwn=lun['serial'])

def backing_objects(root, target, wanted):
    """The object behind each LUN; what differs is made anew, which is safe only while nobody is logged in."""
    present = {item.name: item for item in root.storage_objects}
    made = {}
    for lun in wanted['luns']:
        item = present.get(lun['object'])
        if item is not None and not same(item, lun):
            users = logged_in(target)
            if users:
                fail('%s uses the target, so %s cannot be opened anew' % (users[0], lun['object']))
            item.delete()
            item = None
        if item is None:
            item = opened(lun)
        elif lun['plugin'] == 'fileio' and item.size != lun['size']:
            grow(item, lun)
        made[lun['number']] = item
    return made

def behind(lun):
    try:
        return lun.storage_object
    except RTSLibError:
        return None  # a killed run left it half made

def offer_luns(root, tpg, made, removed):
    present = {lun.lun: lun for lun in tpg.luns}
    for number, lun in present.items():
        item = behind(lun)
        wanted = made.get(number)
        if item is None or wanted is None or item.name != wanted.name:
            lun.delete()
            if item is not None and wanted is None and item.name in removed:
                delete(root, item)
    present = {lun.lun for lun in tpg.luns}
    for number, item in made.items():
        if number not in present:
            LUN(tpg, number, storage_object=item)

def admit(tpg, initiator, wanted, secret):
    acl = NodeACL(tpg, initiator)
    # The account comes before the LUNs: nobody sees them without the secret.
    acl.chap_userid = wanted['user'] or ''
    acl.chap_password = secret
    acl.chap_mutual_userid = ''
    acl.chap_mutual_password = ''
    numbers = {lun['number'] for lun in wanted['luns']}
    for mapped in list(acl.mapped_luns):
        try:
            right = mapped.tpg_lun.lun == mapped.mapped_lun and not mapped.write_protect
        except RTSLibError:
            right = False
        if right and mapped.mapped_lun in numbers:
            numbers.discard(mapped.mapped_lun)
        else:
            mapped.delete()
    for number in sorted(numbers):
        MappedLUN(acl, number, number, False)

def offer(wanted):
    secret = ''
    if wanted['user']:
        secret = sys.stdin.readline().rstrip('\n') or fail('no secret on standard input')
    root = RTSRoot()
    fabric = FabricModule('iscsi')
    fabric._check_self()
    if wanted['new'] and any(target.wwn == wanted['iqn'] for target in fabric.targets):
        fail('there is a target %s already, and stor did not make it' % wanted['iqn'])
    target = Target(fabric, wanted['iqn'])
    tpg = TPG(target, 1)
    attributes = {'authentication': 1 if wanted['user'] else 0, 'generate_node_acls': 0, 'cache_dynamic_acls': 0,
                  'demo_mode_write_protect': 1, 'demo_mode_discovery': 0}
    for name, value in attributes.items():
        if int(tpg.get_attribute(name)) != value:
            tpg.set_attribute(name, value)
    removed = set(wanted['removed'])
    os.makedirs(reservations(root), 0o700, exist_ok=True)
    offer_luns(root, tpg, backing_objects(root, target, wanted), removed)
    for initiator in wanted['initiators']:
        admit(tpg, initiator, wanted, secret)
    for acl in list(tpg.node_acls):
        if acl.node_wwn in wanted['expelled']:
            acl.delete()
    portals = {(portal['address'], portal['port']) for portal in wanted['portals']}
    present = {(portal.ip_address.strip('[]'), portal.port): portal for portal in tpg.network_portals}
    for place, portal in present.items():
        if place not in portals:
            portal.delete()
    for address, port in sorted(portals - set(present)):
        NetworkPortal(tpg, '[%s]' % address if ':' in address else address, port)
    if not tpg.enable:
        tpg.enable = True
    save(root, wanted['iqn'], {lun['object'] for lun in wanted['luns']} | removed)

def forget(iqn, names):
    root = RTSRoot()
    for target in [target for target in FabricModule('iscsi').targets if target.wwn == iqn]:
        users = logged_in(target)
        if users:
            fail('%s uses target %s' % (users[0], iqn))
        target.delete()
    for item in list(root.storage_objects):
        if item.name in names:
            delete(root, item)
    save(root, iqn, names)

try:
    if sys.argv[1] == 'offer':
        offer(json.loads(sys.argv[2]))
    else:
        forget(sys.argv[2], set(sys.argv[3:]))
except (OSError, RTSLibError) as error:
    fail(str(error))
