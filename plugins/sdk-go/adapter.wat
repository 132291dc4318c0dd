;; WASI imports of Go's runtime, implemented with interfaces that every plugin may use: clock, log and crypto. There are
;; no files, arguments or environment variables. `cargo run -p bindings` makes adapter.wasm from this file; the linker
;; puts adapter.wasm next to Go's module.
;;
;; While the node passes memory to the guest (hold in abi.go), host calls are forbidden. Meanwhile clocks advance by
;; themselves, and lines wait. Go's collector reads the clock at any time, also then.
;;
;; Go's linker reserves 4096 to 12288 for a browser's loader, which does not exist here. The range holds results and the
;; unfinished line.
(module
  (import "skylark:plugin/clock@VERSION" "now" (func $now (result i64)))
  (import "skylark:plugin/clock@VERSION" "monotonic" (func $monotonic (result i64)))
  (import "skylark:plugin/log@VERSION" "write" (func $write (param i32 i32 i32)))
  (import "skylark:plugin/crypto@VERSION" "random" (func $random (param i32 i32)))
  (import "env" "memory" (memory 0))

  (global $held (mut i32) (i32.const 0))
  (global $today (mut i64) (i64.const 0))
  (global $elapsed (mut i64) (i64.const 0))
  ;; Bytes of the unfinished line, which starts at 8192.
  (global $line (mut i32) (i32.const 0))

  (func (export "skylark_hold") (param $held i32)
    (global.set $held (local.get $held)))

  ;; Address for the result of `random`.
  (func (export "cabi_import_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 1024)) (then unreachable))
    (i32.const 4112))

  ;; Clock 0 is the wall clock, any other the monotonic clock. In nanoseconds; the monotonic clock always advances.
  (func (export "clock_time_get") (param $id i32) (param i64) (param $out i32) (result i32)
    (local $told i64)
    (if (i32.eqz (local.get $id))
      (then
        (if (i32.eqz (global.get $held))
          (then (global.set $today (i64.mul (call $now) (i64.const 1000000)))))
        (i64.store (local.get $out) (global.get $today)))
      (else
        (global.set $elapsed (i64.add (global.get $elapsed) (i64.const 1)))
        (if (i32.eqz (global.get $held))
          (then
            (local.set $told (call $monotonic))
            (if (i64.gt_u (local.get $told) (global.get $elapsed))
              (then (global.set $elapsed (local.get $told))))))
        (i64.store (local.get $out) (global.get $elapsed))))
    (i32.const 0))

  (func (export "random_get") (param $to i32) (param $left i32) (result i32)
    (local $part i32)
    (if (global.get $held) (then (return (i32.const 52))))
    (block $done
      (loop $more
        (br_if $done (i32.eqz (local.get $left)))
        (local.set $part (select (local.get $left) (i32.const 1024) (i32.lt_u (local.get $left) (i32.const 1024))))
        (call $random (local.get $part) (i32.const 4096))
        (memory.copy (local.get $to) (i32.load (i32.const 4096)) (local.get $part))
        (local.set $to (i32.add (local.get $to) (local.get $part)))
        (local.set $left (i32.sub (local.get $left) (local.get $part)))
        (br $more)))
    (i32.const 0))

  ;; Writes the line to the log at level info.
  (func $flush
    (if (i32.and (i32.eqz (global.get $held)) (i32.ne (global.get $line) (i32.const 0)))
      (then
        (call $write (i32.const 1) (i32.const 8192) (global.get $line))
        (global.set $line (i32.const 0)))))

  (func $print (param $byte i32)
    (if (i32.eq (local.get $byte) (i32.const 10))
      (then (call $flush) (return)))
    (if (i32.eq (global.get $line) (i32.const 4096))
      (then (call $flush)))
    (if (i32.lt_u (global.get $line) (i32.const 4096))
      (then
        (i32.store8 (i32.add (i32.const 8192) (global.get $line)) (local.get $byte))
        (global.set $line (i32.add (global.get $line) (i32.const 1))))))

  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $out i32) (result i32)
    (local $at i32) (local $end i32) (local $sum i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (i32.const 8))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $at (i32.load (local.get $parts)))
        (local.set $end (i32.add (local.get $at) (i32.load offset=4 (local.get $parts))))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $parts))))
        (block $whole
          (loop $byte
            (br_if $whole (i32.eq (local.get $at) (local.get $end)))
            (call $print (i32.load8_u (local.get $at)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $byte)))
        (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $out) (local.get $sum))
    (i32.const 0))

  (func (export "proc_exit") (param i32)
    (call $flush)
    unreachable)

  (func $none (param $one i32) (param $other i32) (result i32)
    (i32.store (local.get $one) (i32.const 0))
    (i32.store (local.get $other) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (func $empty (param i32 i32) (result i32) (i32.const 0))
  (export "args_get" (func $empty))
  (export "environ_get" (func $empty))

  ;; Returns at once: a sleeping goroutine polls the clock until its time.
  (func (export "poll_oneoff") (param i32 i32 i32) (param $count i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.const 0))
  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; Returns error 8: there is no such file.
  (func $no1 (param i32) (result i32) (i32.const 8))
  (export "fd_close" (func $no1))
  (export "fd_sync" (func $no1))
  (func $no2 (param i32 i32) (result i32) (i32.const 8))
  (export "fd_fdstat_get" (func $no2))
  (export "fd_fdstat_set_flags" (func $no2))
  (export "fd_filestat_get" (func $no2))
  (export "fd_prestat_get" (func $no2))
  (export "sock_shutdown" (func $no2))
  (func $no3 (param i32 i32 i32) (result i32) (i32.const 8))
  (export "fd_prestat_dir_name" (func $no3))
  (export "path_create_directory" (func $no3))
  (export "path_remove_directory" (func $no3))
  (export "path_unlink_file" (func $no3))
  (export "sock_accept" (func $no3))
  (func $no4 (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (export "fd_read" (func $no4))
  (func $no5 (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (export "path_filestat_get" (func $no5))
  (export "path_symlink" (func $no5))
  (func $no6 (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (export "path_readlink" (func $no6))
  (export "path_rename" (func $no6))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func $at (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (export "fd_pread" (func $at))
  (export "fd_pwrite" (func $at))
  (export "fd_readdir" (func $at))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 8)))
