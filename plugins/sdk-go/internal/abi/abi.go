// Package abi is what the bindings stand on: memory that the node fills and reads. Written for internal/wit, not for plugins.
//
// The collector of Go moves nothing, so whoever is to stay is held by a pointer that the collector sees. What the node was given or gives lies
// in 32-bit numbers, which it does not.
package abi

import "unsafe"

// Pinner keeps what the node reads during a call. The zero value is ready.
type Pinner struct {
	few   [6]unsafe.Pointer
	count int
	more  []unsafe.Pointer
}

// Pin keeps the piece until Unpin.
func (p *Pinner) Pin(piece unsafe.Pointer) {
	if p.count < len(p.few) {
		p.few[p.count] = piece
		p.count++
		return
	}
	p.more = append(p.more, piece)
}

// Unpin lets go of all.
func (p *Pinner) Unpin() {
	clear(p.few[:p.count])
	p.count = 0
	clear(p.more)
	p.more = p.more[:0]
}

// Allocate gives memory that stays until the pinner lets it go.
func Allocate(pinner *Pinner, size, align uintptr) unsafe.Pointer {
	piece := allocate(size)
	pinner.Pin(piece)
	return piece
}

// Unpin is called when the parameters of a call were read: they are kept by who holds them from now on.
func Unpin() { received.Unpin() }

// What the node handed over since the call began.
var received Pinner

// For pieces of no bytes.
var nothing uint64

// No type asks for more than eight bytes of alignment.
func allocate(size uintptr) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(&nothing)
	}
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
}

// While it holds, the clocks of the collector call nobody: the node forbids it here.
//
//go:wasmimport wasi_snapshot_preview1 skylark_hold
func hold(held int32)

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	hold(1)
	piece := allocate(size)
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(piece), size), unsafe.Slice((*byte)(old), oldSize))
	}
	received.Pin(piece)
	hold(0)
	return piece
}
