package format

// PackID names a pack. It is random and used for exactly one byte string.
type PackID [16]byte

// Hash is a SHA-256.
type Hash [32]byte

// BlockSize is the raw size to which small files are gathered, at which large ones are cut, and over which the leaves of a
// content hash are taken, in bytes.
const BlockSize = 4 << 20

// FrameType says what a frame holds.
type FrameType uint8

// Types of frames.
const (
	FrameData FrameType = 1 // contents of files
	FramePage FrameType = 2 // a page of the manifest
)

// Frame is where an independent piece of a pack lies, and how it is verified.
type Frame struct {
	Pack   PackID
	Index  uint32 // in the pack, from 0: part of the nonce of an encrypted frame
	Offset uint32 // in the pack, in bytes
	Stored uint32 // bytes in the pack
	Raw    uint32 // bytes once decoded
	Gen    uint32 // generation of the key that seals it; 0 if it is not encrypted
	Hash   Hash   // of the stored bytes
}

// Kind is the type of an entry.
type Kind uint8

// Kinds of entries.
const (
	KindFile     Kind = 1
	KindSymlink  Kind = 2
	KindFIFO     Kind = 3
	KindWhiteout Kind = 4 // a character device 0:0, as overlayfs uses it
)

// Flags of an entry.
type Flags uint8

// Flags.
const (
	FlagUnreadable Flags = 1 << 0 // it could not be read: there is no content, and a restore leaves it out
	FlagChanged    Flags = 1 << 1 // it never held still while it was read: the content may be of several moments
)

// Meta are the attributes that every entry and directory has.
type Meta struct {
	Mode    uint16 // the 12 permission bits
	Partial bool   // not all of its extended attributes could be read
	Nsec    uint32 // of the mtime, 0 to 999,999,999
	Sec     int64  // of the mtime, may be negative
	UID     uint32
	GID     uint32
	Extra   *Extra // what few entries have; nil if it has none of it
}

// Extra is what few entries have.
type Extra struct {
	Xattrs []Xattr // ascending by name; ACLs and capabilities are among them
	Target string  // of a symbolic link
	Group  uint64  // of hard links: equal for all names of one inode, see [GroupOf]; 0 if there is one name
	// Pieces are the content of a file that is not one piece from 0 to its size: large, or with holes. Ascending and
	// disjoint; what lies between them is a hole. Empty but not nil: the file is one hole.
	Pieces []Piece
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Piece is a stretch of a file's content.
type Piece struct {
	At    int64  // offset in the file
	Len   uint32 // bytes, at most BlockSize
	Frame uint32 // index into the frames of the page (in memory: of the tree)
	Off   uint32 // offset in the decoded frame
	Hash  Hash   // SHA-256 of these bytes
}

// Entry is a name in a directory that is not a directory.
type Entry struct {
	Name  string
	Kind  Kind
	Flags Flags
	Meta
	Size  int64  // of a file
	Hash  Hash   // of a file's content, see [ContentHash]; zero if it is empty
	Frame uint32 // of a file with content and without Extra.Pieces: index of the frame that holds all of it
	Off   uint32 // and the offset in the decoded frame
}

// Dir is a directory with its entries.
type Dir struct {
	Path string // from the root, components separated by '/'; "" is the root. Any bytes but NUL.
	Meta        // zero if Continued
	// Continued says that an earlier page has the directory and its first entries.
	Continued bool
	Entries   []Entry // ascending by name, bytewise
}

// Page is a stretch of a manifest: directories in path order. It can be decoded without any other page.
type Page struct {
	Frames []Frame
	Dirs   []Dir
}

// PageRef is a row of the page table. Pages ascend by First, those of one directory by Name: what a page has is told without it.
type PageRef struct {
	Frame   Frame
	First   string // path of the first directory
	Name    string // of the first entry if that directory is continued, else empty
	Entries uint32 // entries and directories in it
}
