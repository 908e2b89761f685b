# A toolchain file: the clang of the package ziglang, for another system or CPU.
#
#   cmake -DCMAKE_TOOLCHAIN_FILE=cpp/cmake/zig.cmake -DDROPWISE_ZIG=.../zig -DDROPWISE_TARGET=aarch64-macos
#
# as .ci/cross does.  A target is one of zig's, CPU-SYSTEM[-ABI].

set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DROPWISE_TARGET DROPWISE_ZIG)
string(REPLACE "-" ";" parts "${DROPWISE_TARGET}")
list(GET parts 0 CMAKE_SYSTEM_PROCESSOR)
list(GET parts 1 system)
if(system STREQUAL "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
elseif(system STREQUAL "windows")
  set(CMAKE_SYSTEM_NAME Windows)
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()

set(CMAKE_CXX_COMPILER ${DROPWISE_ZIG} c++)
set(CMAKE_CXX_COMPILER_TARGET ${DROPWISE_TARGET})
# CMake's own checks shall not link: zig then compiles a C++ library first, which takes minutes.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
file(WRITE ${CMAKE_BINARY_DIR}/zig-ar "#!/bin/sh\nexec '${DROPWISE_ZIG}' ar \"$@\"\n")
file(CHMOD ${CMAKE_BINARY_DIR}/zig-ar PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
set(CMAKE_AR ${CMAKE_BINARY_DIR}/zig-ar)
set(CMAKE_RANLIB :)
set(CMAKE_INSTALL_NAME_TOOL :)
