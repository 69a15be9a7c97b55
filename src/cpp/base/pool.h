// Threads that stay: short work is cut over them without the cost of starting threads.
#pragma once

#include <cstddef>
#include <functional>

namespace musicgen {

// Calls body(0) … body(count - 1), each once, in this thread and up to `threads` - 1 others, and returns when all have
// returned. `idle` is called in this thread every few milliseconds; it may throw. After the first exception, from
// `idle` or a body, no more items are begun, and it is thrown again here.
//
// A thread takes the next item when it is done with one: good for items that differ. `neighbours`: it takes many that
// follow one another, fewer towards the end; good for items that share memory, and cost about the same.
//
// The threads are shared by all callers, who may call at the same time. They hold no locks while they wait; a child
// after fork() starts its own; nothing waits for them when the process ends.
void spread(std::size_t count, int threads, const std::function<void(std::size_t)>& body,
            const std::function<void()>& idle, bool neighbours = false);

}  // namespace musicgen
