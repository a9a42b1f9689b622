// The C++ classes that cubecl-llvm's shims name, on LLVM's C API. They compile; what they call aborts.
#pragma once
#include <llvm-c/Core.h>
#include <map>
#include <memory>
#include <string>
namespace llvm {
struct StringRef { const char *d; size_t n; StringRef(const char *d, size_t n) : d(d), n(n) {} };
struct LLVMContext { LLVMContextRef r; };
struct Module { LLVMModuleRef r; LLVMContext c; LLVMContext &getContext() { return c; } };
inline Module *unwrap(LLVMModuleRef m) { static thread_local Module it; it.r = m; it.c.r = LLVMGetModuleContext(m); return &it; }
struct MemoryBufferRef { LLVMMemoryBufferRef r; };
struct MemoryBuffer { LLVMMemoryBufferRef r;
  static std::unique_ptr<MemoryBuffer> getMemBuffer(StringRef s, const char *name, bool) {
    auto b = std::make_unique<MemoryBuffer>(); b->r = LLVMCreateMemoryBufferWithMemoryRangeCopy(s.d, s.n, name); return b; }
  MemoryBufferRef getMemBufferRef() { return {r}; } };
struct Error { std::string m; };
inline std::string toString(Error e) { return e.m; }
template <class T> struct Expected { T v; bool ok; explicit operator bool() const { return ok; } bool operator!() const { return !ok; }
  T &operator*() { return v; } Error takeError() { return {"bitcode could not be parsed"}; } };
inline Expected<std::unique_ptr<Module>> parseBitcodeFile(MemoryBufferRef b, LLVMContext &c) {
  Expected<std::unique_ptr<Module>> e; e.v = std::make_unique<Module>(); LLVMModuleRef m = nullptr;
  e.ok = LLVMParseBitcodeInContext2(c.r, b.r, &m) == 0; e.v->r = m; e.v->c = c; return e; }
struct Linker { enum Flags { None = 0, LinkOnlyNeeded = 2 };
  static bool linkModules(Module &d, std::unique_ptr<Module> s, unsigned) { return LLVMLinkModules2(d.r, s->r) != 0; } };
namespace cl { struct Option { bool addOccurrence(unsigned, const char *, const char *) { return true; } };
  inline std::map<std::string, Option *> &getRegisteredOptions() { static std::map<std::string, Option *> m; return m; } }
} // namespace llvm
