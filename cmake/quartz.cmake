# quartz_folder(NAME LINKS folders... LIBS imported targets...): one static library per folder, linking only what the
# ladder (cmake/ladder.txt, docs/architecture.md) allows. Sources are globbed: a new file is a new part of its folder.
function(quartz_folder name)
  cmake_parse_arguments(A "" "" "LINKS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.c)
  add_library(qz_${name} STATIC ${sources})
  target_include_directories(qz_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_definitions(qz_${name} PUBLIC _GNU_SOURCE QZ_VERSION="${PROJECT_VERSION}")
  foreach(link ${A_LINKS})
    target_link_libraries(qz_${name} PUBLIC qz_${link})
  endforeach()
  target_link_libraries(qz_${name} PRIVATE ${A_LIBS} PUBLIC m)
endfunction()

# The ctest <kind>/<name>, run in the source folder so that paths like demo/model work. What a sanitizer says is a
# failure even where the program ends well: Criterion ignores how the process of a test ends once it has passed.
function(quartz_ctest kind name)
  add_test(NAME ${kind}/${name} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${kind}/${name} PROPERTIES TIMEOUT 600 LABELS ${kind} ENVIRONMENT "${QZ_TEST_ENVIRONMENT}")
  if(QZ_SANITIZE)
    set_tests_properties(${kind}/${name} PROPERTIES
      FAIL_REGULAR_EXPRESSION "(ERROR|WARNING): [A-Za-z]+Sanitizer;runtime error: ")
  endif()
endfunction()

# Every tests/<kind>/<folder>_<what>.c becomes the program test_<kind>_<folder>_<what>, linked with <folder> and what
# lies below it. Tests of `programs` may also run the finished programs: QCAL_PATH and QAT_PATH are their files.
function(quartz_tests kind)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${kind}/*.c)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "_.*" "" folder ${name})
    set(test test_${kind}_${name})
    add_executable(${test} ${source})
    target_link_libraries(${test} PRIVATE qz_${folder} qz_testing)
    if(kind STREQUAL "golden")
      target_link_libraries(${test} PRIVATE qz_checkpoints)
    endif()
    target_compile_options(${test} PRIVATE ${QZ_TEST_OPTIONS})
    if(folder STREQUAL "programs")
      target_compile_definitions(${test} PRIVATE QCAL_PATH="$<TARGET_FILE:qcal>" QAT_PATH="$<TARGET_FILE:qat>")
      add_dependencies(${test} qcal qat)
    endif()
    quartz_ctest(${kind} ${name} ${test})
  endforeach()
endfunction()

# One fuzz target. With QZ_FUZZ it is a libFuzzer program; otherwise an ordinary test over its corpus (fuzz/driver.c).
function(quartz_fuzz target source name folder)
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE qz_${folder})
  target_compile_options(${target} PRIVATE -Wno-missing-prototypes)
  if(QZ_FUZZ)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/driver.c)
    quartz_ctest(fuzz ${name} ${target} tests/fuzz/corpus/${name})
  endif()
endfunction()
