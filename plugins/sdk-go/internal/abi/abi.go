// Package abi manages the memory that the node fills and reads. For internal/wit, not for plugins.
//
// Go's collector moves no memory, so a pointer that the collector sees keeps memory alive. Addresses that are passed to
// or from the node are 32-bit numbers, which the collector does not see.
package abi

import "unsafe"

// Pinner keeps memory alive that the node reads during a call. The zero value is ready.
type Pinner struct {
	few   [6]unsafe.Pointer
	count int
	more  []unsafe.Pointer
}

// Pin keeps the piece alive until Unpin.
func (p *Pinner) Pin(piece unsafe.Pointer) {
	if p.count < len(p.few) {
		p.few[p.count] = piece
		p.count++
		return
	}
	p.more = append(p.more, piece)
}

// Unpin releases all pieces.
func (p *Pinner) Unpin() {
	clear(p.few[:p.count])
	p.count = 0
	clear(p.more)
	p.more = p.more[:0]
}

// Allocate returns memory that stays alive until the pinner releases it.
func Allocate(pinner *Pinner, size, align uintptr) unsafe.Pointer {
	piece := allocate(size)
	pinner.Pin(piece)
	return piece
}

// Unpin is called after the parameters of a call were read. From then on their holders keep them alive.
func Unpin() { received.Unpin() }

// Memory that the node passed since the call began.
var received Pinner

// The address of zero-size allocations.
var nothing uint64

// allocate aligns to eight bytes; no type needs more.
func allocate(size uintptr) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(&nothing)
	}
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
}

// hold stops and resumes host calls from the collector's clocks: the node forbids host calls here.
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
