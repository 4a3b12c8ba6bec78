package embedded

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the system user under which PostgreSQL's programs run. They
// refuse to run as root, so root lends them another; everybody else uses
// their own, for which the zero value stands.
type account struct {
	uid, gid uint32
	name     string
}

const overflowID = 65534 // what "nobody" is nearly everywhere

// accountFor returns the owner of an existing data directory, or for a new
// one the first of postgres, nobody and 65534 when we are root.
func accountFor(clusterDir string) (account, error) {
	euid := uint32(os.Geteuid())
	if info, err := os.Stat(clusterDir); err == nil {
		owner := info.Sys().(*syscall.Stat_t)
		switch {
		case euid != 0 && owner.Uid != euid:
			return account{}, &Problem{
				Code:    CodeFolderUnusable,
				Message: fmt.Sprintf("the data in %s belong to the user %s", clusterDir, userName(owner.Uid)),
				WayOut:  "start as that user or as root, or choose another folder with --data-dir",
			}
		case euid == 0 && owner.Uid != 0:
			return account{uid: owner.Uid, gid: owner.Gid, name: userName(owner.Uid)}, nil
		}
	}
	if euid != 0 {
		return account{}, nil
	}
	lent := lentAccount()
	if exists(clusterDir) { // owned by root, as after a restored backup
		err := filepath.WalkDir(clusterDir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return lent.take(path)
		})
		if err != nil {
			return account{}, unusable(clusterDir, err)
		}
	}
	return lent, nil
}

func lentAccount() account {
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{uid: uint32(uid), gid: uint32(gid), name: name}
		}
	}
	return account{uid: overflowID, gid: overflowID, name: strconv.Itoa(overflowID)}
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if found, err := user.LookupId(id); err == nil {
		return found.Username
	}
	return id
}

// run makes cmd run under the account.
func (a account) run(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}

// take gives a file or directory to the account.
func (a account) take(path string) error {
	if a.uid == 0 {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// checkReach makes sure that the account can enter each path from the root
// down: a data folder under /root cannot work and the programs say so badly.
func (a account) checkReach(paths ...string) error {
	if a.uid == 0 {
		return nil
	}
	for _, path := range paths {
		for at := path; ; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			if err != nil {
				return unusable(path, err)
			}
			if !a.mayEnter(info) {
				return &Problem{
					Code:    CodeFolderUnusable,
					Message: fmt.Sprintf("PostgreSQL refuses to run as root, and the user %s, which it runs as instead, may not enter %s", a.name, at),
					WayOut:  "start muster as an ordinary user, or choose a folder that everybody may enter, such as /var/lib/muster, with --data-dir",
				}
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil
}

func (a account) mayEnter(info fs.FileInfo) bool {
	owner := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case owner.Uid == a.uid:
		return mode&0o100 != 0
	case owner.Gid == a.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
