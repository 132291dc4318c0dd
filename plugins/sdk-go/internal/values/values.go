// Package values has the types of the interface that Go lacks. Plugins see them through the package skylark.
package values

// The cases of a Result, by their tags.
const (
	ResultOk = iota
	ResultErr
)

// The cases of an Option, by their tags.
const (
	OptionNone = iota
	OptionSome
)

// Option is a value or none. The zero value is none.
type Option[T any] struct {
	value T
	is    bool
}

// Some returns an option with a value.
func Some[T any](value T) Option[T] { return Option[T]{value, true} }

// None returns an option without a value.
func None[T any]() Option[T] { return Option[T]{} }

// Get returns the value, and true if there is one.
func (o Option[T]) Get() (T, bool) { return o.value, o.is }

// Or returns the value, or the fallback if there is none.
func (o Option[T]) Or(fallback T) T {
	if o.is {
		return o.value
	}
	return fallback
}

// Some returns the value; the zero value for none.
func (o Option[T]) Some() T { return o.value }

// Tag is OptionSome or OptionNone.
func (o Option[T]) Tag() uint8 {
	if o.is {
		return OptionSome
	}
	return OptionNone
}

// Result is a value or an error.
type Result[T, E any] struct {
	value T
	err   E
	tag   uint8
}

// Ok returns a result with a value.
func Ok[T, E any](value T) Result[T, E] { return Result[T, E]{value: value, tag: ResultOk} }

// Err returns a result with an error.
func Err[T, E any](err E) Result[T, E] { return Result[T, E]{err: err, tag: ResultErr} }

// Ok returns the value.
func (r Result[T, E]) Ok() T { return r.value }

// Err returns the error.
func (r Result[T, E]) Err() E { return r.err }

// Tag is ResultOk or ResultErr.
func (r Result[T, E]) Tag() uint8 { return r.tag }

// Unit is a value without content.
type Unit struct{}

// Tuple2 is a pair of values.
type Tuple2[A, B any] struct {
	F0 A
	F1 B
}
