#!/usr/bin/env python3
"""Restores a backup that is not encrypted from a store in a directory. It follows docs/format.md and shares no code with
the program that wrote the backup: what it can read, anybody can. It needs Python 3.8 and the program zstd.
usage: restore.py STORE DOMAIN WORKSPACE BACKUP TARGET      (for example: restore.py /mnt/store team-a web 7.2 /tmp/web)
TARGET must be missing or empty. Exit status: 0, 1 for an error, 3 if the backup lacks files that could not be read."""
import base64, functools, hashlib, json, os, pathlib, re, stat, struct, subprocess, sys

BLOCK, FILE, SYMLINK, FIFO = 4 << 20, 1, 2, 3
PAGE = ("paths names shared targets xattrs dirs classes entries seconds nanoseconds sizes places pieces sets groups "
        "frames packs frame_hashes hashes").split()
TABLE = "paths names rows frames packs hashes".split()

def need(ok, message):
    if not ok:
        raise ValueError(message)
def sha256(data): return hashlib.sha256(data).digest()
def unzstd(data): return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout

class Column:
    """Bytes that are read from the front."""
    def __init__(self, data):
        self.data, self.at = data, 0
    def take(self, n):
        self.at += n
        need(self.at <= len(self.data), "a column is too short")
        return self.data[self.at - n:self.at]
    def number(self):
        byte = self.take(1)[0]
        return byte if byte < 128 else byte & 127 | self.number() << 7
    def signed(self):
        v = self.number()
        return v >> 1 ^ -(v & 1)
    def text(self): return self.take(self.data.index(b"\0", self.at) - self.at + 1)[:-1]
    def sized(self): return self.take(self.number())
def read_columns(raw, counts, names):
    r = Column(raw)
    need(r.take(1) == b"\1" and r.number() == 0, "it is of a newer version")
    r.number()  # features that a reader need not know
    counts, lengths = [r.number() for _ in range(counts)], [r.number() for _ in range(r.number())]
    return counts, {name: Column(r.take(n)) for name, n in zip(names, lengths)}
def read_frames(c, hashes, n_packs, n):  # a frame is (pack, offset, stored, raw, hash)
    ids = [(c["packs"].take(16).hex(), c["packs"].number()) for _ in range(n_packs)]
    frames, last, end, r = [], None, 0, c["frames"]
    need(not any(generation for _, generation in ids), "it is encrypted")
    for _ in range(n):
        pack, _, offset, stored, raw = r.number(), r.signed(), r.signed(), r.number(), r.number()
        offset += end if pack == last else 48
        frames.append((ids[pack][0], offset, stored, raw, hashes.take(32)))
        last, end = pack, offset + stored
    return frames
def read_table(table):
    magic, version, _, needed, _, generation, _ = struct.unpack("<8sHHIIII", table[:28])
    need((magic, version, needed, generation) == (b"ws-table", 1, 0, 0), "no table, or encrypted, or of a newer version")
    need(sha256(table[:28] + table[60:]) == table[28:60], "the page table is damaged")
    counts, c = read_columns(unzstd(table[60:]), 2, TABLE)
    return read_frames(c, c["hashes"], *counts)

def read_page(raw):
    """Yields (row, path, continued) for directories and (row, name, None) for entries. A row is a dict."""
    (n_packs, n_frames, n_classes, n_sets, n_dirs, _), c = read_columns(raw, 6, PAGE)
    frames = read_frames(c, c["frame_hashes"], n_packs, n_frames)
    r, x = c["classes"], c["xattrs"]
    classes = [(r.take(1)[0], r.number(), r.number(), r.number()) for _ in range(n_classes)]
    sets = [[(x.sized(), x.sized()) for _ in range(x.number())] for _ in range(n_sets)]
    sec = nsec = frame = end = 0
    def place(r, length):
        nonlocal frame, end
        v = r.number()
        if v >> 1:
            frame, end = frame + (v >> 2 ^ -(v >> 1 & 1)), 0
        off = r.number() if v & 1 else end
        end = off + length
        return frames[frame], off, length
    def read_row(tag, mode, uid, gid):
        nonlocal sec, nsec
        sec, nsec = sec + c["seconds"].signed(), nsec + c["nanoseconds"].signed()
        e = dict(kind=tag & 7, lost=tag & 8, mode=mode & 0o7777, partial=mode >> 12, uid=uid, gid=gid, sec=sec, nsec=nsec, hash=bytes(32), pieces=[])
        e["xattrs"] = sets[c["sets"].number()] if tag & 0x20 else []
        e["group"] = int.from_bytes(c["groups"].take(8 if tag & 0x40 else 0), "little")
        e["target"] = c["targets"].sized() if e["kind"] == SYMLINK and not e["lost"] else b""
        e["size"] = c["sizes"].number() if e["kind"] == FILE and not e["lost"] else 0
        if e["size"]:
            e["hash"], at = c["hashes"].take(32), 0
            if not tag & 0x80:
                e["pieces"] = [(0, place(c["places"], e["size"]), e["hash"])]
            for _ in range(c["pieces"].number() if tag & 0x80 else 0):
                at += c["pieces"].number()
                e["pieces"].append((at, place(c["pieces"], c["pieces"].number()), c["hashes"].take(32)))
                at += e["pieces"][-1][1][2]  # its length
        return e
    path = name = b""
    for _ in range(n_dirs):
        path = path[:c["dirs"].number()] + c["paths"].text()
        count, dir_class = c["dirs"].number(), classes[c["dirs"].number()]
        yield (None, path, True) if dir_class[0] & 8 else (read_row(*dir_class), path, False)
        for _ in range(count):
            name = name[:c["shared"].take(1)[0]] + c["names"].text()
            yield read_row(*classes[c["entries"].number()]), name, None

def digest_row(e, name):
    def number(v): return bytes([v]) if v < 128 else bytes([v & 127 | 128]) + number(v >> 7)
    def sized(b): return number(len(b)) + b
    if e["lost"]:
        return b"U" + sized(name)
    row = b"DFLPW"[e["kind"]:e["kind"] + 1] + sized(name) + number(e["mode"]) + number(e["uid"]) + number(e["gid"])
    row += number(e["sec"] << 1 ^ e["sec"] >> 63) + number(e["nsec"]) + number(len(e["xattrs"]))
    row += b"".join(sized(a) + sized(v) for a, v in e["xattrs"]) + sized(e["target"]) + number(e["group"])
    return row + (number(e["size"]) + e["hash"] if e["kind"] == FILE else b"")
def content_hash(fd, size, pieces):
    if size <= BLOCK:
        return sha256(os.pread(fd, size, 0)) if size else bytes(32)
    total = hashlib.sha256(b"ws-daemon file v1\n" + struct.pack("<Q", size))
    for i in sorted({i for at, (_, _, n), _ in pieces for i in range(at // BLOCK, (at + n - 1) // BLOCK + 1)}):
        block = os.pread(fd, BLOCK, i * BLOCK)
        if block.count(0) != len(block):
            total.update(struct.pack("<Q", i) + sha256(block))
    return total.digest()

def set_attributes(name, e):
    if os.geteuid() == 0:
        os.chown(name, e["uid"], e["gid"], follow_symlinks=False)
    for a, v in e["xattrs"]:  # after chown, which takes capabilities away
        os.setxattr(name, a, v, follow_symlinks=False)
    if e["kind"] != SYMLINK:
        os.chmod(name, e["mode"])
    os.utime(name, ns=(e["sec"] * 10**9 + e["nsec"],) * 2, follow_symlinks=False)
def make_entry(e, name, content):
    if e["kind"] == SYMLINK:
        os.symlink(e["target"], name)
    elif e["kind"] != FILE:  # a FIFO, or a whiteout: a device 0:0
        os.mknod(name, 0o600 | (stat.S_IFIFO if e["kind"] == FIFO else stat.S_IFCHR))
    else:
        with open(name, "x+b", buffering=0) as f:
            f.truncate(e["size"])
            for at, (frame, off, length), _ in e["pieces"]:  # the hash of the whole file covers those of its pieces
                os.pwrite(f.fileno(), content(frame)[off:off + length], at)
            need(content_hash(f.fileno(), e["size"], e["pieces"]) == e["hash"], "the content of %r is damaged" % name)
    set_attributes(name, e)
def restore(store, domain, workspace, backup, target):
    """Returns the number of entries that the backup lacks."""
    base = os.path.abspath(os.path.join(store, "d", domain))
    key = ".".join("%016x" % (2**63 - 1 - int(n)) for n in backup.split("."))
    record = pathlib.Path(base, "w", workspace, key).read_bytes()
    need(record[-78:] == b',"sha256":"%s"}\n' % sha256(record[:-78]).hex().encode(), "its commit is damaged")
    commit = json.loads(record)
    need([commit[k] for k in ("format", "domain", "workspace", "name")] == [1, domain, workspace, backup], "its commit is another one")
    os.makedirs(target, 0o700, exist_ok=True)
    need(not os.listdir(target), "%s is not empty" % target)
    os.chdir(target)  # paths may be longer than a system call takes, so every name is used in its directory
    root, groups, lost, here, digest = os.getcwdb(), {}, 0, [], hashlib.sha256(b"ws-daemon tree v1\n")
    @functools.lru_cache(maxsize=8)
    def content(frame):
        with open(os.path.join(base, "p", frame[0][:2], frame[0]), "rb") as f:
            data = os.pread(f.fileno(), frame[2], frame[1])
        need(sha256(data) == frame[4], "pack %s is damaged at %d" % frame[:2])
        return unzstd(data)
    def leave():
        name, row = here.pop()
        os.chdir(".." if here else ".")
        set_attributes(name, row)
    pages = read_table(base64.b64decode(commit["table"]))
    for row, name, continued in (row for page in pages for row in read_page(content(page))):
        above = [n for n, _ in here[1:]]
        path = above + [name] if continued is None else name.split(b"/") if name else []
        need(not {b"", b".", b".."} & set(path) and b"/" not in b"".join(path), "%r is no valid path" % name)
        digest.update(b"" if continued else digest_row(row, name))
        if row and row["partial"]:
            lost, _ = lost + 1, print("attributes are missing: %r" % b"/".join(path), file=sys.stderr)
        if continued is False:  # a directory: leave those that it is not in
            need(above[:len(path) - 1] == path[:-1] if path else not here, "%r has no parent" % name)
            while path and len(here) > len(path):
                leave()
            if path:
                os.mkdir(path[-1], 0o700)
                os.chdir(path[-1])
            here.append((path[-1] if path else b".", row))
        elif continued:
            need(path == above, "%r is continued where it does not end" % name)
        elif row["lost"]:
            lost += 1
            print("not in the backup: %r" % b"/".join(path), file=sys.stderr)
        elif row["group"] in groups:
            os.link(groups[row["group"]], name, follow_symlinks=False)
        else:
            make_entry(row, name, content)
            if row["group"]:
                groups[row["group"]] = b"/".join([root] + path)
    while here:
        leave()
    need(digest.hexdigest() == commit["tree"]["digest"], "the tree has another digest than its commit says")
    return lost

if __name__ == "__main__":
    if len(sys.argv) != 6 or not re.fullmatch(r"[1-9][0-9]*\.[1-9][0-9]*", sys.argv[4]):
        sys.exit(__doc__)
    try:
        sys.exit(3 if restore(*sys.argv[1:]) else 0)
    except (OSError, ValueError, LookupError, OverflowError, struct.error, subprocess.CalledProcessError) as error:
        sys.exit("restore %s: %s" % (sys.argv[4], error))
