#include "emulate.h"

#include <csetjmp>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace mmkgc::emulate {

Thread* current = nullptr;

namespace {

constexpr std::size_t kStack = std::size_t{256} << 10;
constexpr int kWarp = 32;

enum class State { ready, at_block, at_warp, done };

struct Fiber {
  Thread thread;
  State state = State::done;
  jmp_buf at;
  ucontext_t first;
  bool started = false;
  char* stack = nullptr;
  void* fake_stack = nullptr;
};

struct Warp {
  // Two sets, so that a lane may start the next exchange before another has read the previous one.
  uint64_t slots[2][kWarp];
};

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<int> turn;  // the next set of slots of each fiber
  std::vector<char> shared;
  const std::function<void()>* body = nullptr;
  int threads = 0;
  Fiber* running = nullptr;
  jmp_buf scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  std::size_t scheduler_size = 0;
  std::exception_ptr error;
};

Machine machine;

// jmp_buf switches stacks fast; ucontext is used for the first entry. The sanitizer is notified of
// every switch.
void leave(Fiber& fiber, bool finished) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(finished ? nullptr : &fiber.fake_stack, machine.scheduler_bottom,
                                 machine.scheduler_size);
#else
  (void)finished;
#endif
  if (_setjmp(fiber.at) == 0) _longjmp(machine.scheduler, 1);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &machine.scheduler_bottom,
                                  &machine.scheduler_size);
#endif
}

void enter() {
  Fiber& fiber = *machine.running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_bottom, &machine.scheduler_size);
#endif
  for (;;) {
    try {
      (*machine.body)();
    } catch (...) {
      if (!machine.error) machine.error = std::current_exception();
    }
    fiber.state = State::done;
    leave(fiber, false);  // resumed for the next block
  }
}

void resume(Fiber& fiber) {
  machine.running = &fiber;
  current = &fiber.thread;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&machine.scheduler_fake_stack, fiber.stack, kStack);
#endif
  if (_setjmp(machine.scheduler) == 0) {
    if (fiber.started) {
      _longjmp(fiber.at, 1);
    } else {
      fiber.started = true;
      setcontext(&fiber.first);
    }
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(machine.scheduler_fake_stack, nullptr, nullptr);
#endif
}

void add_fiber() {
  auto fiber = std::make_unique<Fiber>();
  void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack == MAP_FAILED) throw std::bad_alloc();
  fiber->stack = static_cast<char*>(stack);
  getcontext(&fiber->first);
  fiber->first.uc_stack.ss_sp = fiber->stack;
  fiber->first.uc_stack.ss_size = kStack;
  fiber->first.uc_link = nullptr;
  makecontext(&fiber->first, enter, 0);
  machine.fibers.push_back(std::move(fiber));
}

void wait(State state) {
  Fiber& fiber = *machine.running;
  fiber.state = state;
  leave(fiber, false);
}

// Makes the fibers [begin, end) ready if all of them wait in `state`; returns whether they do.
bool release(int begin, int end, State state) {
  for (int i = begin; i < end; ++i) {
    if (machine.fibers[static_cast<std::size_t>(i)]->state != state) return false;
  }
  for (int i = begin; i < end; ++i) {
    machine.fibers[static_cast<std::size_t>(i)]->state = State::ready;
  }
  return true;
}

void run_block() {
  const int n = machine.threads;
  for (;;) {
    bool moved = false;
    int done = 0;
    for (int i = 0; i < n; ++i) {
      Fiber& fiber = *machine.fibers[static_cast<std::size_t>(i)];
      if (fiber.state == State::ready) {
        resume(fiber);
        moved = true;
        if (machine.error) std::rethrow_exception(machine.error);
      }
      done += fiber.state == State::done;
    }
    if (done == n) return;
    for (int begin = 0; begin < n; begin += kWarp) {
      moved |= release(begin, begin + kWarp < n ? begin + kWarp : n, State::at_warp);
    }
    moved |= release(0, n, State::at_block);
    if (!moved) {
      throw std::runtime_error("emulated kernel: only some threads of a block reach a "
                               "barrier");
    }
  }
}

}  // namespace

void sync_block() { wait(State::at_block); }

const uint64_t* exchange(uint64_t mine) {
  const auto index = static_cast<std::size_t>(current->thread.x);
  int& turn = machine.turn[index];
  uint64_t* slots = machine.warps[index / kWarp].slots[turn];
  turn ^= 1;
  slots[index % kWarp] = mine;
  wait(State::at_warp);
  return slots;
}

void* dynamic_shared() { return machine.shared.data(); }

void run(int64_t blocks, int threads, std::size_t shared, const std::function<void()>& body) {
  static std::mutex one_kernel;
  const std::lock_guard<std::mutex> guard(one_kernel);
  if (threads % kWarp != 0) throw std::runtime_error("emulated kernel: blocks must be whole warps");
  while (machine.fibers.size() < static_cast<std::size_t>(threads)) add_fiber();
  machine.threads = threads;
  machine.body = &body;
  machine.warps.resize(static_cast<std::size_t>(threads / kWarp));
  machine.turn.assign(static_cast<std::size_t>(threads), 0);
  machine.error = nullptr;
  for (int64_t block = 0; block < blocks; ++block) {
    // New for each block, of exactly the requested size, and filled with NaN.
    machine.shared.assign(shared, static_cast<char>(0xff));
    machine.shared.shrink_to_fit();
    for (int i = 0; i < threads; ++i) {
      Fiber& fiber = *machine.fibers[static_cast<std::size_t>(i)];
      fiber.state = State::ready;
      fiber.thread.thread.x = static_cast<unsigned>(i);
      fiber.thread.block.x = static_cast<unsigned>(block);
      fiber.thread.block_size.x = static_cast<unsigned>(threads);
      fiber.thread.grid_size.x = static_cast<unsigned>(blocks);
    }
    try {
      run_block();
    } catch (...) {
      machine.fibers.clear();  // discards unfinished fibers with their stacks
      throw;
    }
  }
}

}  // namespace mmkgc::emulate
